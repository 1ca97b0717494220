// Tuned kernel configs on disk: one JSON file per machine, kernels' sources, shape and options, under
// $ASSAY_CACHE, else $XDG_CACHE_HOME/assay, else ~/.cache/assay. A cache that cannot be used costs a sentence
// on stderr and a new measurement.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "gpu/autotune.h"
#include "harness/contract/problem.h"

namespace assay::cli {

/// All that a tuned config depends on, as text. `machine` is tuning_machine().
/// `part` of the layer is that which is tuned.
std::string tuning_key(std::string_view part, const Problem& problem, const GpuOptions& options,
                       const std::string& machine);

/// Where the tuning of that key is kept, or nothing where no folder is known.
std::optional<std::filesystem::path> tuning_path(const std::string& key);

/// The config kept under that key; nothing when there is none, and with a sentence when it is damaged or of
/// another key.
template <class Config = KernelConfigForward>
std::optional<Config> load_tuning(const std::string& key);

/// Keeps the tuning's choice with its measurements.
template <class Config>
void store_tuning(const std::string& key, const Tuning<Config>& tuning);

}  // namespace assay::cli
