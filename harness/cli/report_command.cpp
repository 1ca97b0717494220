// assay report: render saved results again, several of them in one page.
#include <algorithm>
#include <filesystem>
#include <iterator>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "golden/file_text.h"
#include "harness/cli/approval_file.h"
#include "harness/cli/commands.h"
#include "harness/cli/output.h"
#include "harness/cli/saved_report.h"
#include "harness/contract/error.h"
#include "harness/judge/regress.h"
#include "reports/json.h"

namespace assay::cli {

Report read_report(const std::string& path) {
  constexpr std::size_t kLongest = std::size_t{1} << 30;
  return report_from_json(file_text(path, kLongest), path);
}

namespace {

/// The reports of a folder, oldest first, without those that are shown themselves.
std::vector<Report> reports_in(const std::string& folder, const std::vector<std::string>& shown) {
  std::vector<Report> history;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string path = entry.path().string();
    const bool is_shown = std::ranges::any_of(shown, [&](const std::string& one) {
      std::error_code none;
      return std::filesystem::equivalent(one, path, none);
    });
    if (path.ends_with(".json") && !path.ends_with(kApprovalsEnding) && !is_shown)
      history.push_back(read_report(path));
  }
  if (error) throw InputError(fmt::format("{}: {}", folder, error.message()));
  std::ranges::sort(history, {}, &Report::created);
  return history;
}

}  // namespace

void add_report(CLI::App& app, Program& program) {
  auto* command = app.add_subcommand(
      "report", "render saved JSON results as text, HTML, JUnit or Markdown, beside earlier ones");
  struct Options {
    std::vector<std::string> results;
    std::string history;
    OutputOptions output;
  };
  auto options = std::make_shared<Options>();
  command->add_option("RESULT", options->results, "JSON files written by verify --json")
      ->required()
      ->type_name("RESULT.json...");
  command
      ->add_option("--history", options->history,
                   "folder of earlier JSON results: errors, verdicts and times over them")
      ->type_name("DIR");
  add_output_options(*command, options->output);
  command->callback([options, &program] {
    program.selected = [options] {
      auto read = options->results;
      if (!options->history.empty()) read.push_back(options->history);
      require_outputs_apart(output_files(options->output), read);
      Report merged = read_report(options->results.front());
      for (std::size_t i = 1; i < options->results.size(); ++i) {
        Report next = read_report(options->results[i]);
        merged.seconds += next.seconds;
        merged.peak_memory_bytes = std::max(merged.peak_memory_bytes, next.peak_memory_bytes);
        std::ranges::move(next.cases, std::back_inserter(merged.cases));
      }
      std::vector<Report> history;
      if (!options->history.empty()) history = reports_in(options->history, options->results);
      if (history.empty()) return emit(merged, options->output);
      return emit(merged, options->output, {history, regress(history.back(), merged)});
    };
  });
}

}  // namespace assay::cli
