// Who computes the reference's products and compares fields: the CPU, or a GPU that the CPU checks
// (harness/contract/engine.h).
#pragma once

#include <string_view>

#include "harness/contract/engine.h"

namespace assay::cli {

inline constexpr std::string_view kEngineAuto = "auto";  // the GPU, where there is one, for what is large
inline constexpr std::string_view kEngineCpu = "cpu";
inline constexpr std::string_view kEngineGpu = "gpu";  // the GPU for everything it has the arithmetic of

/// Nothing for the CPU. Throws InputError for "gpu" where there is no device.
std::optional<Engine> make_engine(std::string_view choice);

/// Puts an engine in force for its lifetime, then the one before it. Copies of an engine share what it keeps
/// on the device.
class EngineScope {
 public:
  explicit EngineScope(std::optional<Engine> engine);
  ~EngineScope();
  EngineScope(const EngineScope&) = delete;
  EngineScope& operator=(const EngineScope&) = delete;

 private:
  std::optional<Engine> before_;
};

}  // namespace assay::cli
