// Where results go: text on stdout, and the files that were asked for, each written whole or not at all.
#pragma once

#include <string>

#include "harness/contract/exit_code.h"
#include "harness/contract/report.h"
#include "reports/html/html.h"

namespace CLI {
class App;
}

namespace assay::cli {

struct OutputOptions {
  std::string html, json, junit;
  std::string colour = "auto";
  bool quiet = false;
  bool verbose = false;
};

/// Whether to colour what goes to the stream: --color beats the environment (NO_COLOR, CLICOLOR_FORCE,
/// FORCE_COLOR), which beats the terminal.
bool wants_colour(const std::string& choice, int stream);

void add_output_options(CLI::App& command, OutputOptions& options);

/// Title, command, date and environment of a new report.
Report start_report(const std::string& title, const std::string& command_line);

/// Prints and writes the report; the exit code of its verdict. `history`, oldest first, is shown in the HTML
/// page.
ExitCode emit(const Report& report, const OutputOptions& options, const History& history = {});

}  // namespace assay::cli
