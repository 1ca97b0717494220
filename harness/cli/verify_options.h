// What assay verify is asked for.
#pragma once

#include <string>
#include <vector>

#include "harness/cli/engine_choice.h"
#include "harness/cli/kernel_config.h"
#include "harness/cli/output.h"
#include "harness/cli/plugin/plugin_pipeline.h"
#include "harness/cli/shard.h"
#include "harness/judge/judge.h"

namespace CLI {
class App;
}

namespace assay::cli {

struct VerifyOptions {
  std::vector<std::string> goldens;
  std::vector<std::string> fixtures;
  std::vector<std::string> pipelines;
  std::vector<std::string> exclude;
  std::vector<std::string> stages;
  std::string checkpoint;
  std::string input;
  std::string contract;
  std::string accumulator;
  std::string dump;
  std::string engine = std::string(kEngineAuto);
  std::int64_t layer = -1;
  std::int64_t tokens = 16;
  std::uint64_t seed = 1;
  double false_alarm = JudgeOptions{}.false_alarm;  // of the whole run, shared out among its cases
  std::size_t cases = 1;
  KernelConfigTexts kernel_config;
  double time_limit = kTimeLimit;
  bool permute_x = true;
  bool permute_y = false;
  bool timings = false;
  Shard shard;         // of the cases; statistics are shared out among all, whoever judges them
  bool sweep = false;  // `pipelines` are then every config of those named
  bool fail_fast = false;
  bool backward = false;
  bool dx_only = false;
  bool dw_only = false;
  OutputOptions output;
};

/// All its options; `shard` is read once they are parsed (complete).
void add_verify_options(CLI::App& command, VerifyOptions& options, std::string& shard);

/// Once they are parsed: checks them, and sets what follows from them: the configs of a sweep, the number of
/// cases, the shard. Throws UsageError for options that contradict themselves, name what is not there or that
/// nothing reads.
void complete(const CLI::App& command, VerifyOptions& options, const std::string& shard);

/// The options that this pipeline reads, as words: " --backward --permute-y true".
std::string run_words(const VerifyOptions& options, std::string_view pipeline);

/// How its cases are judged. Throws UsageError for a stage that is none.
JudgeOptions judge_options(const VerifyOptions& options);

/// The problems that are asked for and not excluded, each kind small ones first: golden files by name or
/// path, fixtures by name.
std::vector<std::string> goldens_of(const VerifyOptions& options);
std::vector<std::string> fixtures_of(const VerifyOptions& options);

}  // namespace assay::cli
