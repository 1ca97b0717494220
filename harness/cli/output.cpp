#include "harness/cli/output.h"

#include <cstdio>
#include <cstdlib>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "harness/cli/environment.h"
#include "harness/contract/error.h"
#include "harness/host/atomic_file.h"
#include "reports/html/html.h"
#include "reports/json.h"
#include "reports/junit.h"
#include "reports/text.h"

namespace assay::cli {
namespace {

bool set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

int terminal_width() {
  winsize size{};
  if (isatty(STDOUT_FILENO) != 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 60)
    return std::min<int>(size.ws_col, 140);
  return 110;
}

}  // namespace

bool wants_colour(const std::string& choice, int stream) {
  if (choice != "auto") return choice == "always";
  if (set("NO_COLOR")) return false;
  if (set("CLICOLOR_FORCE") || set("FORCE_COLOR")) return true;
  return isatty(stream) != 0;
}

void add_output_options(CLI::App& command, OutputOptions& options) {
  command.add_option("--html", options.html, "write a single-file HTML report")->type_name("FILE");
  command.add_option("--json", options.json, "write the report as JSON; '-' for stdout")->type_name("FILE");
  command.add_option("--junit", options.junit, "write JUnit XML")->type_name("FILE");
  command.add_option("--color", options.colour, "colours: auto, always or never")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->type_name("WHEN");
  command.add_flag("-q,--quiet", options.quiet, "no text on stdout");
  command.add_flag("-v,--verbose", options.verbose, "tables and worst elements of passing cases too");
}

Report start_report(const std::string& title, const std::string& command_line) {
  Report report;
  report.title = title;
  report.command = command_line;
  report.created = utc_now();
  report.environment = environment();
  return report;
}

ExitCode emit(const Report& report, const OutputOptions& options, const History& history) {
  if (!options.json.empty() && options.json != "-") write_file_atomically(options.json, to_json(report));
  if (!options.junit.empty()) write_file_atomically(options.junit, render_junit(report));
  if (!options.html.empty()) write_file_atomically(options.html, render_html(report, history));
  const bool json_on_stdout = options.json == "-";
  if (options.quiet) {  // why nothing could be judged is no mere text
    for (const auto& one : report.cases)
      if (one.verdict == Verdict::MissingGolden || one.verdict == Verdict::Unsupported)
        fmt::print(stderr, "assay: {}{}\n",
                   one.headline.find(one.problem) == std::string::npos
                       ? fmt::format("{}, {}: ", one.problem, one.candidate)
                       : "",
                   one.headline);
  }
  if (!options.quiet) {
    std::FILE* stream = json_on_stdout ? stderr : stdout;
    const TextOptions text{wants_colour(options.colour, fileno(stream)), terminal_width(), options.verbose};
    fmt::print(stream, "{}", render_text(report, text));
    if (!options.html.empty()) fmt::print(stream, "Report: {}\n", options.html);
  }
  if (json_on_stdout) fmt::print("{}", to_json(report));
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) throw InputError("could not write to stdout");
  return exit_code(report.verdict());
}

}  // namespace assay::cli
