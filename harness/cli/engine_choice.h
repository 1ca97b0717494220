// Who computes the reference's products and compares fields: the CPU, or a GPU that the CPU checks
// (harness/contract/engine.h).
#pragma once

#include <optional>
#include <string_view>

#include "harness/contract/engine.h"

namespace assay::cli {

inline constexpr std::string_view kEngineAuto = "auto";  // the GPU, where there is one, for what is large
inline constexpr std::string_view kEngineCpu = "cpu";
inline constexpr std::string_view kEngineGpu = "gpu";  // the GPU for everything it has the arithmetic of

/// Nothing for the CPU. Throws InputError for "gpu" where there is no device.
std::optional<Engine> make_engine(std::string_view choice);

}  // namespace assay::cli
