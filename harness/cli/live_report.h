// A report that grows: each case is printed when it is judged, and the files are written whatever ends the
// run.
#pragma once

#include <cstddef>
#include <mutex>
#include <string>

#include "harness/cli/output.h"
#include "harness/contract/report.h"
#include "harness/host/interruption.h"
#include "reports/text.h"

namespace assay::cli {

class LiveReport {
 public:
  /// Ctrl-C, SIGTERM and a crash of this process write what is there from here on.
  LiveReport(Report head, const OutputOptions& options, std::size_t planned);

  /// What is being done, for a terminal or a log, and for the report should it be interrupted: "judging".
  /// `runs_pipeline`: a crash is the candidate's.
  void doing(const std::string& problem, const std::string& candidate, const std::string& what,
             bool runs_pipeline = false);
  /// Prints and keeps a case. `below` is printed under it.
  void add(CaseResult result, const std::string& below = "");
  /// Prints the end and writes the files; the exit code of the verdict.
  ExitCode finish();
  /// The same of a sweep: its configs are told as a table, the worst first, and written in that order.
  ExitCode finish_sweep();

 private:
  std::string head() const;  // of the report, before its first case
  void print(const std::string& text) const;
  ExitCode end(const std::string& table);
  void close();  // time and memory of the report
  void interrupted(int signal);

  const OutputOptions& options_;
  std::size_t planned_;
  Report report_;
  TextStream text_;
  CaseResult current_;
  bool runs_pipeline_ = false;
  std::timed_mutex lock_;
  Interruption interruption_;  // last: nothing above is gone while it lives
};

}  // namespace assay::cli
