// Who computes the reference's products: the CPU, or a GPU that the CPU checks (harness/product_engine.h).
#pragma once

#include <string_view>

#include "harness/product_engine.h"

namespace assay::cli {

inline constexpr std::string_view kEngineAuto = "auto";  // the GPU, where there is one, for large products
inline constexpr std::string_view kEngineCpu = "cpu";
inline constexpr std::string_view kEngineGpu = "gpu";    // the GPU for every product it has the arithmetic of

/// Nothing for the CPU. Throws InputError for "gpu" where there is no device.
std::optional<ProductEngine> make_engine(std::string_view choice);

/// Puts an engine in force for its lifetime, then the one before it. Copies of an engine share what it keeps on the device.
class EngineScope {
 public:
  explicit EngineScope(std::optional<ProductEngine> engine);
  ~EngineScope();
  EngineScope(const EngineScope&) = delete;
  EngineScope& operator=(const EngineScope&) = delete;

 private:
  std::optional<ProductEngine> before_;
};

}  // namespace assay::cli
