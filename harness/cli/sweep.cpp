#include "harness/cli/sweep.h"

#include <fmt/format.h>

#include "harness/cli/kernel_config.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/plugin/plugin_pipeline.h"
#include "harness/cli/plugin/plugin_process.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

std::vector<std::string> configs_of_plugin(const std::string& path, double time_limit) {
  const PluginName name(path);
  if (!name.config.empty())
    throw UsageError(fmt::format("--sweep runs every config of {}, found '#{}'", name.path, name.config));
  auto configs = plugin_configs(path, time_limit);
  if (configs.empty())
    throw InputError(fmt::format(
        "expected {} to export assay_plugin_configs and assay_plugin_select (harness/host/plugin.h), for "
        "--sweep runs every config that they list; found no such symbols",
        path));
  return configs;
}

}  // namespace

std::vector<std::string> with_every_config(const std::vector<std::string>& pipelines, bool backward,
                                           double time_limit) {
  std::vector<std::string> all;
  for (const auto& name : pipelines) {
    std::vector<std::string> configs;
    if (name == kGpuFused) {
      configs = kernel_config_names(backward);
    } else if (name.starts_with(kPlugin)) {
      try {
        configs = configs_of_plugin(name.substr(kPlugin.size()), time_limit);
      } catch (const CandidateError&) {
        all.push_back(name);
      }
    } else {
      throw UsageError(fmt::format("--sweep: expected {} or plugin:PATH.so, which have configs, found {}",
                                   kGpuFused, name));
    }
    for (const auto& config : configs) all.push_back(fmt::format("{}#{}", name, config));
  }
  return all;
}

}  // namespace assay::cli
