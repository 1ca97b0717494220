// Where results go: text on stdout, and the files that were asked for, each written whole or not at all.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "harness/contract/exit_code.h"
#include "harness/contract/report.h"
#include "reports/html/html.h"
#include "reports/text.h"

namespace CLI {
class App;
}

namespace assay::cli {

struct OutputOptions {
  std::string html;
  std::string json;
  std::string junit;
  std::string markdown;
  std::string colour = "auto";
  bool quiet = false;
  bool verbose = false;
};

/// Whether to colour what goes to the stream: --color beats the environment (NO_COLOR, CLICOLOR_FORCE,
/// FORCE_COLOR), which beats the terminal.
bool wants_colour(const std::string& choice, int stream);

void add_output_options(CLI::App& command, OutputOptions& options);

/// Throws UsageError where two reports would go to stdout.
void require_one_on_stdout(const OutputOptions& options);

/// A file that an option asks for, and the option.
struct OutputFile {
  std::string option;
  std::string path;
};

/// The files of --html, --json, --junit and --markdown.
std::vector<OutputFile> output_files(const OutputOptions& options);

/// Throws UsageError where an output would replace a file that the command reads, under this or another name,
/// or another output. `inputs` may hold folders: then none of their files.
void require_outputs_apart(const std::vector<OutputFile>& outputs, const std::vector<std::string>& inputs);

/// Title, command, date and environment of a new report.
Report start_report(const std::string& title, const std::string& command_line);

inline constexpr const char* kStdout = "-";
inline constexpr const char* kOutOfMemory = "out of memory; fewer tokens or a smaller fixture would fit";

TextOptions text_options(const OutputOptions& options);
/// Where text goes: stderr where a report goes to stdout.
std::FILE* text_stream(const OutputOptions& options);
/// The files that were asked for, and on stderr what --quiet must not hide. Throws InputError.
void write_reports(const Report& report, const OutputOptions& options, const History& history = {});
/// "Report: FILE", where there is one.
std::string report_names(const OutputOptions& options);

/// Writes a report to stdout where `to` is "-", nowhere where it is empty.
void write_output(const std::string& to, const std::string& text);
/// Throws InputError when output went nowhere: a full disk, a closed stream.
void require_stdout();

/// Prints and writes the report; the exit code of its verdict. `history`, oldest first, is shown before
/// it and in the HTML page.
ExitCode emit(const Report& report, const OutputOptions& options, const History& history = {});

}  // namespace assay::cli
