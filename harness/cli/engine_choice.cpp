#include "harness/cli/engine_choice.h"

#include "gpu/engine/gpu_engine.h"
#include "gpu/pipeline.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

// About a second of two CPU cores: below, the context and the way there and back cost as much.
constexpr LeastWork kWorthTheWay = {.multiply_adds = std::int64_t{1} << 33,
                                    .elements = std::int64_t{1} << 24};

}  // namespace

std::optional<Engine> make_engine(std::string_view choice) {
  if (choice == kEngineCpu) return std::nullopt;
  if (choice == kEngineAuto) return gpu_engine(kWorthTheWay);
  if (const auto reason = gpu_unavailable()) throw InputError(*reason);
  return gpu_engine({});
}

}  // namespace assay::cli
