// The declared list of kernel configs and the rule that chooses among measured ones; the same with and
// without CUDA.
#include "gpu/autotune.h"

namespace assay {
namespace {

std::string microseconds(double value) {
  const auto tenths = static_cast<long long>(value * 10.0 + 0.5);
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " us";
}

}  // namespace

std::vector<KernelConfigForward> tuning_space(const Sizes& sizes) {
  std::vector<KernelConfigForward> space = {{}};
  for (const char* tiles : {"tall", "wide"})
    for (const int cluster : {1, 2})
      for (const int down : {3, 2})
        for (const int raster : {2, 4, 8, 16})
          space.push_back({.variant = "wgmma_sm90",
                           .tiles = tiles,
                           .pipeline_depth_down = down,
                           .raster_rows = raster,
                           .cluster = cluster});
  KernelConfigForward narrow{.variant = "wgmma_sm90", .tiles = "narrow"};
  if (!gpu_unsupported(narrow, sizes)) space.push_back(narrow);
  space.push_back({.variant = "mma_sm80"});
  return space;
}

std::vector<KernelConfigBackwardDw> tuning_space_dW() {
  std::vector<KernelConfigBackwardDw> space = {{}};
  for (const char* order : {"height", "width"})
    for (const int depth : {3, 2})
      for (const int gathered : {4, 3})
        space.push_back({.variant = "wgmma_sm90",
                         .tile_order = order,
                         .pipeline_depth = depth,
                         .pipeline_depth_gathered = gathered});
  space.push_back({.variant = "mma_sm80"});
  return space;
}

std::string describe(const KernelConfigForward& config) {
  return "variant=" + config.variant + ",tiles=" + config.tiles +
         ",pipeline_depth_gate_up=" + std::to_string(config.pipeline_depth_gate_up) +
         ",pipeline_depth_down=" + std::to_string(config.pipeline_depth_down) +
         ",raster_rows=" + std::to_string(config.raster_rows) +
         ",persistent_blocks=" + std::to_string(config.persistent_blocks) +
         ",cluster=" + std::to_string(config.cluster);
}

std::string describe(const KernelConfigBackwardDw& config) {
  return "variant=" + config.variant + ",tile_order=" + config.tile_order +
         ",pipeline_depth=" + std::to_string(config.pipeline_depth) +
         ",pipeline_depth_gathered=" + std::to_string(config.pipeline_depth_gathered) +
         ",persistent_blocks=" + std::to_string(config.persistent_blocks);
}

template <class Config>
Config choose(const std::vector<TuningTrial<Config>>& trials, std::string& reason) {
  const auto& standard = trials.front();
  const TuningTrial<Config>* best =
      &standard;  // of those that gain more than their spread; a time that is not a number never does
  for (const auto& trial : trials)
    if (trial.equal_bits && trial.gain_us > trial.spread_us && trial.gain_us > best->gain_us) best = &trial;
  if (best == &standard) {
    reason = "the default stays: " + microseconds(standard.median_us) + ", and none of " +
             std::to_string(trials.size()) + " configs gains more than the spread of its gain";
    return standard.config;
  }
  reason = describe(best->config) + " wins: " + microseconds(best->gain_us) + " less than the default's " +
           microseconds(standard.median_us) + ", spread " + microseconds(best->spread_us);
  return best->config;
}

template KernelConfigForward choose(const std::vector<TuningTrial<KernelConfigForward>>&, std::string&);
template KernelConfigBackwardDw choose(const std::vector<TuningTrial<KernelConfigBackwardDw>>&, std::string&);

}  // namespace assay
