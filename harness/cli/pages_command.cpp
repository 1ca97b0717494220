// assay completion, assay manual: pages about the commands, for whoever installs the program.
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "harness/cli/command_pages.h"
#include "harness/cli/commands.h"
#include "harness/cli/environment.h"

namespace assay::cli {
namespace {

struct ShellRow {
  const char* name;
  std::string (*script)(const CLI::App&);
};
constexpr ShellRow kShells[] = {
    {"bash", bash_completion}, {"zsh", zsh_completion}, {"fish", fish_completion}};

}  // namespace

void add_pages(CLI::App& app, Program& program) {
  auto* completion = app.add_subcommand("completion", "print a script that completes commands and options");
  completion->require_subcommand(1);
  for (const auto& shell : kShells)
    completion->add_subcommand(shell.name, fmt::format("for {}", shell.name))
        ->callback([&shell, &app, &program] {
          program.selected = [&shell, &app] {
            fmt::print("{}", shell.script(app));
            return ExitCode::Passed;
          };
        });
  app.add_subcommand("manual", "print the manual page, in roff: assay manual | man -l -")
      ->callback([&app, &program] {
        program.selected = [&app] {
          fmt::print("{}", manual_page(app, version()));
          return ExitCode::Passed;
        };
      });
}

}  // namespace assay::cli
