// A plug-in in a process of its own, seen from the program.
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "harness/cli/plugin/placed_problem.h"
#include "harness/contract/candidate.h"
#include "harness/contract/error.h"
#include "harness/contract/verdict.h"
#include "harness/host/child_program.h"

namespace assay::cli {

/// The plug-in's process ended (Crashed) or did not answer (TimedOut).
struct EndedError : CandidateError {
  EndedError(const std::string& sentence, Verdict of_case) : CandidateError(sentence), verdict(of_case) {}
  Verdict verdict;
};

/// What a plug-in declares.
struct PluginRow {
  std::vector<PlacedField> results;    // of forward
  std::vector<PlacedField> gradients;  // of backward; none where it has no such function
  Candidate candidate;                 // without fields
  std::vector<std::string> configs;    // that it lists
  bool device = false;
  std::int64_t row_alignment = 1;  // the rows of an expert begin at a multiple of it
};

/// "PATH.so#CONFIG" in its parts; a file of that very name has no config.
struct PluginName {
  explicit PluginName(const std::string& word);
  std::string path;
  std::string config;  // empty: as the library runs by itself
};

class PluginProcess {
 public:
  /// "PATH.so" or "PATH.so#CONFIG", by which sentences name it.
  explicit PluginProcess(std::string name) : path_(std::move(name)) {}

  /// Starts the process unless it runs. A library that failed once is not loaded again: the same error is
  /// thrown. Throws InputError, CandidateError, EndedError.
  const PluginRow& row(double time_limit);

  /// Hands a problem over.
  void place(const PlacedProblem& problem, double time_limit);
  /// Calls the function once; results and guards lie in the problem's memory. `when` is for sentences: "in
  /// its first run on tiny".
  void run(const PlacedProblem& problem, wire::Function function, double time_limit, const std::string& when);
  /// Fingerprints of device copies of the inputs.
  wire::Reply fingerprints(const PlacedProblem& problem, double time_limit);

  /// Its threads take nobody's time while nothing is asked of it.
  void rest();
  /// Ends the process; the next row() starts another.
  void end() { child_.reset(); }

 private:
  void load(double time_limit);
  wire::Reply ask(const wire::Request& request, double seconds, const std::string& when,
                  std::span<const int> descriptors = {});
  wire::Reply await(double seconds, const std::string& when);
  [[noreturn]] void report_ending(const std::optional<wire::Reply>& fault, double seconds,
                                  const std::string& when);

  std::string path_;
  std::optional<PluginRow> row_;
  std::exception_ptr failed_;
  std::unique_ptr<ChildProgram> child_;
};

}  // namespace assay::cli
