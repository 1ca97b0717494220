#include "harness/cli/verify_options.h"

#include <algorithm>

#include <fmt/format.h>

#include "golden/sha256.h"
#include "harness/cli/kernel_config.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/plugin/plugin_process.h"
#include "harness/contract/error.h"
#include "harness/contract/layer.h"
#include "reference_cpu/reference_run.h"

namespace assay::cli {

JudgeOptions judge_options(const VerifyOptions& options) {
  JudgeOptions judge;
  judge.contract = options.contract;
  judge.reference = make_reference;
  judge.hash = [](std::span<const std::byte> bytes) { return sha256_hex(bytes); };
  judge.false_alarm = options.false_alarm / static_cast<double>(std::max<std::size_t>(options.cases, 1));
  if (!options.accumulator.empty()) {
    const Accumulator all = parse_accumulator(options.accumulator);
    judge.accumulators = every_product(all);
  }
  if (!options.stage.empty()) {
    judge.only = find_stage(options.stage);
    if (const auto field = find_field(options.stage); field) judge.only = row(*field).stage;
    if (!judge.only) {
      std::string valid;
      for (const auto& field : kFields)
        if (find_step(field.id) != nullptr && valid.find(name(field.stage)) == std::string::npos)
          valid += fmt::format("{}{}", valid.empty() ? "" : ", ", name(field.stage));
      throw UsageError(fmt::format("unknown stage '{}'; valid: {}, or a field of one", options.stage, valid));
    }
  }
  return judge;
}

void check(const VerifyOptions& options) {
  if (options.goldens.empty() && options.fixtures.empty() && options.checkpoint.empty())
    throw UsageError("verify needs --golden FILE, --fixture GLOB or --checkpoint DIR --layer N");
  if (!(options.fixtures.empty() && options.checkpoint.empty()) && options.pipelines.empty())
    throw UsageError(
        "--fixture and --checkpoint need --pipeline: a name (assay list pipelines), dump:FILE.h5 or "
        "plugin:PATH.so");
  if (!options.checkpoint.empty() && options.layer < 0) throw UsageError("--checkpoint needs --layer N");
  if (options.checkpoint.empty() && (options.layer >= 0 || !options.input.empty()))
    throw UsageError("--layer and --input need --checkpoint DIR");
  if (!(options.false_alarm > 0.0 && options.false_alarm < 1.0))
    throw UsageError(fmt::format("--false-alarm must be a probability above 0 and below 1, found {}",
                                 options.false_alarm));
  for (const auto& name : options.pipelines)
    if (name.starts_with(kPlugin)) check_plugin(name.substr(kPlugin.size()), options.time_limit);
  if (options.kernel_config != kAutotune)
    parse_kernel_config(options.kernel_config);  // refused before anything is judged
}

}  // namespace assay::cli
