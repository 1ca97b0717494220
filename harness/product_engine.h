// A device that takes grouped products over from the CPU: the same values, intervals and bits, sooner.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "harness/grouped_product.h"

namespace assay {

/// Each function fills `out` [rows, n] and returns true, or returns false and leaves the product to the CPU: a planted fault,
/// an accumulator or an operand it has no arithmetic for.
struct ProductEngine {
  std::string name;                      // "gpu: NVIDIA H200"
  std::int64_t least_multiply_adds = 0;  // smaller products are not worth the way there and back
  std::function<bool(const GroupedProduct<Interval>& product, std::span<Interval> out)> bounded;
  std::function<bool(const GroupedProduct<PredictedValue>& product, std::span<PredictedValue> out)> predicted;
};

/// The engine every product is offered to; null, as at the start, for none. Not to be called while products run.
void use_product_engine(std::optional<ProductEngine> engine);
const ProductEngine* product_engine();

/// How many products the engine in force has taken over.
std::int64_t products_by_engine();
void count_product_by_engine();

}  // namespace assay
