#include "harness/cli/pipeline_reads.h"

#include <algorithm>

#include "harness/cli/option_use.h"
#include "harness/cli/pipelines.h"

namespace assay::cli {

PipelineReads options_read_by(std::string_view pipeline) {
  if (pipeline.starts_with(kPlugin)) return {.backward = true, .half_backward = true, .time_limit = true};
  if (pipeline.starts_with(kDump) || pipeline == kGpuFp64) return {};  // a file's results, a forward pass
  const bool fused = pipeline == kGpuFused || pipeline.starts_with(kGpuFusedWith);
  return {.backward = true,
          .half_backward = pipeline.starts_with("gpu_"),
          .permutes = fused,
          .kernel_config = pipeline == kGpuFused};
}

void require_time_limit_read(const CLI::App& command, std::span<const std::string> pipelines) {
  const bool any =
      std::ranges::any_of(pipelines, [](const auto& name) { return options_read_by(name).time_limit; });
  require_read(command, {{"--time-limit", any, "--pipeline plugin:PATH.so"}});
}

}  // namespace assay::cli
