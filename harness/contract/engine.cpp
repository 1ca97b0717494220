#include "harness/contract/engine.h"

#include <atomic>

namespace assay {
namespace {

std::optional<Engine> in_force;
std::atomic<std::int64_t> products = 0;
std::atomic<std::int64_t> comparisons = 0;

}  // namespace

void use_engine(std::optional<Engine> engine) {
  in_force = std::move(engine);
  products = comparisons = 0;
}

const Engine* engine_in_force() { return in_force ? &*in_force : nullptr; }

TakenOver taken_by_engine() { return {products, comparisons}; }
void count_product_by_engine() { ++products; }
void count_comparison_by_engine() { ++comparisons; }

}  // namespace assay
