#include "harness/cli/engine.h"

#include "gpu/pipeline.h"
#include "gpu/product_engine.h"
#include "harness/error.h"

namespace assay::cli {
namespace {

// About a second of two CPU cores: below, the context and the way there and back cost as much.
constexpr std::int64_t kWorthTheWay = std::int64_t{1} << 33;

}  // namespace

std::optional<ProductEngine> make_engine(std::string_view choice) {
  if (choice == kEngineCpu) return std::nullopt;
  if (choice == kEngineAuto) return gpu_product_engine(kWorthTheWay);
  if (const auto reason = gpu_unavailable()) throw InputError(*reason);
  return gpu_product_engine(0);
}

EngineScope::EngineScope(std::optional<ProductEngine> engine) {
  if (product_engine() != nullptr) before_ = *product_engine();
  use_product_engine(std::move(engine));
}

EngineScope::~EngineScope() { use_product_engine(std::move(before_)); }

}  // namespace assay::cli
