#include "harness/cli/live_report.h"

#include <fmt/format.h>
#include <unistd.h>
#include <chrono>
#include <csignal>
#include <cstdio>

#include "harness/cli/environment.h"
#include "harness/contract/printable.h"
#include "reports/sweep_report.h"

namespace assay::cli {
namespace {

std::chrono::steady_clock::time_point started() {
  static const auto start = std::chrono::steady_clock::now();
  return start;
}

bool crash(int signal) { return signal != SIGINT && signal != SIGTERM && signal != SIGHUP; }

}  // namespace

LiveReport::LiveReport(Report head, const OutputOptions& options, std::size_t planned)
    : options_(options),
      planned_(planned),
      report_(std::move(head)),
      text_(text_options(options), planned),
      interruption_([this](int signal) { interrupted(signal); }) {
  require_one_on_stdout(options);
  started();
}

void LiveReport::doing(const std::string& problem, const std::string& candidate, const std::string& what,
                       bool runs_pipeline) {
  const std::scoped_lock lock(lock_);
  current_ = {};
  current_.problem = problem;
  current_.candidate = candidate;
  current_.headline = what;
  runs_pipeline_ = runs_pipeline;
  progress(fmt::format("{} of {}: {}, {} {}", report_.cases.size() + 1, planned_, problem, what, candidate));
}

void LiveReport::add(CaseResult result, const std::string& below) {
  const std::scoped_lock lock(lock_);
  progress_done();
  print(head() + text_.add(result) + below);
  report_.cases.push_back(std::move(result));
}

ExitCode LiveReport::finish() {
  const std::scoped_lock lock(lock_);
  return end("");
}

ExitCode LiveReport::finish_sweep() {
  const std::scoped_lock lock(lock_);
  const auto table = sweep_table(report_.cases, text_options(options_));
  report_.cases = sweep_order(std::move(report_.cases));
  return end(table);
}

ExitCode LiveReport::end(const std::string& table) {
  progress_done();
  close();
  write_reports(report_, options_);
  print(head() + table + text_.tail(report_) + report_names(options_));
  require_stdout();
  return exit_code(report_.verdict());
}

std::string LiveReport::head() const { return report_.cases.empty() ? text_.head(report_) : ""; }

void LiveReport::print(const std::string& text) const {
  if (options_.quiet) return;
  std::FILE* stream = text_stream(options_);
  // What stdout does not take is told once, at the end; what stderr does not take ends nothing.
  std::fwrite(text.data(), 1, text.size(), stream);
  std::fflush(stream);
}

void LiveReport::close() {
  report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started()).count();
  report_.peak_memory_bytes = peak_memory_bytes();
}

/// On a thread of its own, while the others stand still or go on: they may hold the lock.
void LiveReport::interrupted(int signal) {
  constexpr auto kPatience = std::chrono::seconds(5);
  const std::unique_lock lock(lock_, kPatience);
  if (!lock.owns_lock()) return;
  const auto judged = report_.cases.size();
  const bool crashed = crash(signal);
  CaseResult last = current_;
  last.verdict = crashed && runs_pipeline_ ? Verdict::Crashed : Verdict::NotJudged;
  last.headline = fmt::format("{} while {} {} on {}; {} of {} cases were judged before",
                              crashed ? fmt::format("crashed ({})", signal_name(signal))
                                      : fmt::format("interrupted ({})", signal_name(signal)),
                              current_.headline, current_.candidate, current_.problem, judged, planned_);
  progress_done();
  print(head() + text_.add(last));
  report_.cases.push_back(std::move(last));
  close();
  try {
    write_reports(report_, options_);
    print(text_.tail(report_));
    print(report_names(options_));
  } catch (const std::exception& error) {
    say(fmt::format("assay: {}\n", printable(error.what(), true)));
  }
  std::fflush(stdout);
  if (crashed && runs_pipeline_) ::_exit(static_cast<int>(ExitCode::Failed));
}

}  // namespace assay::cli
