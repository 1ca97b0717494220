// Which options of a command line a pipeline reads: one that none of those named reads is refused.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace CLI {
class App;
}

namespace assay::cli {

struct PipelineReads {
  bool backward = false;       // --backward
  bool half_backward = false;  // --dx-only, --dw-only
  bool permutes = false;       // --permute-x, --permute-y
  bool kernel_config = false;  // --kernel-config, --kernel-config-bwd-dx, --kernel-config-bwd-dw
  bool time_limit = false;     // --time-limit
};
PipelineReads options_read_by(std::string_view pipeline);

/// Throws UsageError where --time-limit was given and none of the pipelines is a plugin.
void require_time_limit_read(const CLI::App& command, std::span<const std::string> pipelines);

}  // namespace assay::cli
