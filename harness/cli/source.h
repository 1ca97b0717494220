// What one-problem commands work on: a golden, a fixture or a dump beside one of them, and the candidate
// under a contract.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "harness/cli/plugin/plugin_pipeline.h"
#include "harness/contract/candidate.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/problem.h"
#include "harness/contract/reference.h"

namespace CLI {
class App;
}

namespace assay::cli {

struct SourceOptions {
  std::string golden;
  std::string fixture;
  std::string pipeline;
  std::string fault;
  std::string contract;
  std::string accumulator;
  double time_limit = kTimeLimit;
  bool backward = false;  // pipelines run the backward pass as well
};

/// --golden, --fixture, --pipeline, --fault, --contract, --accumulator, --time-limit.
void add_source_options(CLI::App& command, SourceOptions& options);

/// --time-limit SECONDS of a plug-in's call.
void add_time_limit_option(CLI::App& command, double& seconds);

/// A problem and how a candidate is made for it; the candidate can be made again for another problem unless
/// it comes from a file.
struct Source {
  Problem problem;
  Candidate candidate;
  PrecisionContract contract;
  Accumulators accumulators;  // declared, or what is assumed of a Hopper candidate
  Accumulators declared;      // by the candidate or by --accumulator
  bool predict = false;       // declared, or made by a Hopper GPU
  bool reruns = false;        // false: the candidate is a file's
  std::string words;          // "--golden G.h5 --pipeline dump:mine.h5": repeats this source in any command
};

/// The files that are read.
std::vector<std::string> read_files(const SourceOptions& options);

/// Throws UsageError for a wrong combination, InputError for a file that cannot be read.
Source load_source(const SourceOptions& options);

/// The candidate of the source's kind on another problem. Throws UsageError when the source's candidate is a
/// file's.
Candidate run_again(const SourceOptions& options, const Problem& problem, const std::string& contract);

}  // namespace assay::cli
