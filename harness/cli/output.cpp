#include "harness/cli/output.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "harness/cli/environment.h"
#include "harness/contract/error.h"
#include "harness/host/atomic_file.h"
#include "reports/history.h"
#include "reports/html/html.h"
#include "reports/json.h"
#include "reports/junit.h"
#include "reports/markdown.h"
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

namespace fs = std::filesystem;

/// Whether both names are those of one regular file, or would be where the files do not exist yet.
bool same_file(const fs::path& one, const fs::path& other) {
  std::error_code none;
  const bool there = fs::exists(one, none);
  const bool other_there = fs::exists(other, none);
  if (there != other_there) return false;
  if (there) return fs::is_regular_file(one, none) && fs::equivalent(one, other, none);
  return fs::weakly_canonical(fs::absolute(one, none), none) ==
         fs::weakly_canonical(fs::absolute(other, none), none);
}

void require_apart(const OutputFile& output, const fs::path& input) {
  if (same_file(output.path, input))
    throw UsageError(fmt::format("{} {} would replace {}, which this command reads", output.option,
                                 output.path, input.string()));
}

}  // namespace

std::vector<OutputFile> output_files(const OutputOptions& options) {
  std::vector<OutputFile> files;
  for (const auto& [option, path] :
       {std::pair("--html", &options.html), std::pair("--json", &options.json),
        std::pair("--junit", &options.junit), std::pair("--markdown", &options.markdown)})
    if (!path->empty() && *path != kStdout) files.push_back({option, *path});
  return files;
}

void require_outputs_apart(const std::vector<OutputFile>& outputs, const std::vector<std::string>& inputs) {
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].path == kStdout)
      throw UsageError(
          fmt::format("{} - : expected a file; only reports are written to stdout", outputs[i].option));
    for (const auto& input : inputs) {
      std::error_code none;
      require_apart(outputs[i], input);
      for (const auto& entry : fs::directory_iterator(input, none)) require_apart(outputs[i], entry.path());
    }
    for (std::size_t j = 0; j < i; ++j)
      if (same_file(outputs[j].path, outputs[i].path))
        throw UsageError(fmt::format("{} {} and {} {} are one file", outputs[j].option, outputs[j].path,
                                     outputs[i].option, outputs[i].path));
  }
}

bool wants_colour(const std::string& choice, int stream) {
  if (choice != "auto") return choice == "always";
  if (set("NO_COLOR")) return false;
  if (set("CLICOLOR_FORCE") || set("FORCE_COLOR")) return true;
  const char* terminal = std::getenv("TERM");
  return isatty(stream) != 0 && (terminal == nullptr || std::string_view(terminal) != "dumb");
}

void add_output_options(CLI::App& command, OutputOptions& options) {
  command.add_option("--html", options.html, "write a single-file HTML report; '-' for stdout")
      ->type_name("FILE");
  command.add_option("--json", options.json, "write the report as JSON; '-' for stdout")->type_name("FILE");
  command.add_option("--junit", options.junit, "write JUnit XML; '-' for stdout")->type_name("FILE");
  command
      .add_option("--markdown", options.markdown,
                  "write Markdown, made for a pull request's comment; '-' for stdout")
      ->type_name("FILE");
  command.add_option("--color", options.colour, "colours: auto, always or never")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->type_name("WHEN");
  command.add_flag("-q,--quiet", options.quiet, "no text on stdout");
  command.add_flag("-v,--verbose", options.verbose, "tables and worst elements of passing cases too")
      ->excludes("--quiet");
}

namespace {

/// Options whose file is stdout: "--json -".
std::vector<std::string> on_stdout(const OutputOptions& options) {
  std::vector<std::string> all;
  for (const auto& [option, file] : {std::pair("--json", &options.json),
                                     {"--html", &options.html},
                                     {"--junit", &options.junit},
                                     {"--markdown", &options.markdown}})
    if (*file == kStdout) all.push_back(fmt::format("{} -", option));
  return all;
}

}  // namespace

void require_one_on_stdout(const OutputOptions& options) {
  const auto all = on_stdout(options);
  if (all.size() > 1)
    throw UsageError(fmt::format("{} all go to stdout: one report at a time", fmt::join(all, " and ")));
}

Report start_report(const std::string& title, const std::string& command_line) {
  Report report;
  report.title = title;
  report.command = command_line;
  report.created = utc_now();
  report.environment = environment();
  return report;
}

TextOptions text_options(const OutputOptions& options) {
  return {wants_colour(options.colour, fileno(text_stream(options))), terminal_width(), options.verbose};
}

std::FILE* text_stream(const OutputOptions& options) { return on_stdout(options).empty() ? stdout : stderr; }

void write_output(const std::string& to, const std::string& text) {
  if (to == kStdout)
    std::fwrite(text.data(), 1, text.size(), stdout);
  else if (!to.empty())
    write_file_atomically(to, text);
}

void write_reports(const Report& report, const OutputOptions& options, const History& history) {
  require_one_on_stdout(options);
  if (!options.json.empty()) write_output(options.json, to_json(report));
  if (!options.junit.empty()) write_output(options.junit, render_junit(report));
  if (!options.markdown.empty()) write_output(options.markdown, render_markdown(report));
  if (!options.html.empty()) write_output(options.html, render_html(report, history));
  if (!options.quiet) return;  // why nothing could be judged is no mere text
  for (const auto& one : report.cases)
    if (one.verdict == Verdict::MissingGolden || one.verdict == Verdict::Unsupported ||
        one.verdict == Verdict::NotJudged)
      say(fmt::format("assay: {}{}\n",
                      one.headline.find(one.problem) == std::string::npos
                          ? fmt::format("{}, {}: ", one.problem, one.candidate)
                          : "",
                      one.headline));
}

std::string report_names(const OutputOptions& options) {
  return options.html.empty() || options.html == kStdout ? "" : fmt::format("Report: {}\n", options.html);
}

void require_stdout() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) throw InputError("could not write to stdout");
}

ExitCode emit(const Report& report, const OutputOptions& options, const History& history) {
  write_reports(report, options, history);
  if (!options.quiet) {
    const std::string text = render_history_text(report, history.reports, text_options(options)) +
                             render_text(report, text_options(options)) + report_names(options);
    std::fwrite(text.data(), 1, text.size(), text_stream(options));
  }
  require_stdout();
  return exit_code(report.verdict());
}

}  // namespace assay::cli
