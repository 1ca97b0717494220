// verify --sweep: every config of a pipeline, each as a pipeline of its own.
#pragma once

#include <string>
#include <vector>

namespace assay::cli {

/// The configs of each pipeline, by names that every command takes: "gpu_fused#tiles=tall",
/// "plugin:./libmine.so#tiles=64". A plugin that crashes or hangs while it is asked stays as it is: that is
/// the verdict of its cases. Throws UsageError for a pipeline that has no configs, InputError for a plugin
/// that lists none.
std::vector<std::string> with_every_config(const std::vector<std::string>& pipelines, bool backward,
                                           double time_limit);

}  // namespace assay::cli
