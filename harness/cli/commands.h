// The program's commands: one file each. A command adds its options to the app and runs when CLI11 has parsed
// them.
#pragma once

#include <functional>
#include <string>

#include "harness/contract/exit_code.h"

namespace CLI {
class App;
}

namespace assay::cli {

/// What main hands to every command.
struct Program {
  std::string command_line;            // as typed, for reports
  std::function<ExitCode()> selected;  // set by the command that was named
};

void add_verify(CLI::App& app, Program& program);
void add_regress(CLI::App& app, Program& program);
void add_diff(CLI::App& app, Program& program);
void add_invariance(CLI::App& app, Program& program);
void add_merge(CLI::App& app, Program& program);
void add_golden(CLI::App& app, Program& program);
void add_report(CLI::App& app, Program& program);
void add_mutate(CLI::App& app, Program& program);
void add_inspect(CLI::App& app, Program& program);
void add_list(CLI::App& app, Program& program);
void add_list_hashes(CLI::App& list, Program& program);  // a kind of `assay list` with options of its own
void add_explain(CLI::App& app, Program& program);
void add_minimize(CLI::App& app, Program& program);
void add_bench(CLI::App& app, Program& program);
void add_pages(CLI::App& app, Program& program);
void add_bench_layer(CLI::App& bench, Program& program);  // a kind of `assay bench` with options of its own

}  // namespace assay::cli
