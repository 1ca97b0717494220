#include "harness/product_engine.h"

#include <atomic>

namespace assay {
namespace {

std::optional<ProductEngine> in_force;
std::atomic<std::int64_t> taken = 0;

}  // namespace

void use_product_engine(std::optional<ProductEngine> engine) {
  in_force = std::move(engine);
  taken = 0;
}

const ProductEngine* product_engine() { return in_force ? &*in_force : nullptr; }

std::int64_t products_by_engine() { return taken; }
void count_product_by_engine() { ++taken; }

}  // namespace assay
