// What assay verify is asked for.
#pragma once

#include <string>
#include <vector>

#include "harness/cli/engine_choice.h"
#include "harness/cli/output.h"
#include "harness/cli/plugin/plugin_pipeline.h"
#include "harness/judge/judge.h"

namespace assay::cli {

struct VerifyOptions {
  std::vector<std::string> goldens, fixtures, pipelines;
  std::string checkpoint, input, contract, accumulator, stage, dump, engine = std::string(kEngineAuto);
  std::int64_t layer = -1, tokens = 16;
  std::uint64_t seed = 1;
  double false_alarm = JudgeOptions{}.false_alarm;  // of the whole run, shared out among its cases
  std::size_t cases = 1;
  std::string kernel_config;
  double time_limit = kTimeLimit;
  bool permute_x = true, permute_y = false, timings = false;
  bool backward = false, dx_only = false, dw_only = false;
  OutputOptions output;
};

/// How its cases are judged. Throws UsageError for a stage that is none.
JudgeOptions judge_options(const VerifyOptions& options);

/// Throws UsageError for options that contradict themselves or name what is not there.
void check(const VerifyOptions& options);

}  // namespace assay::cli
