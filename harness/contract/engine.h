// A device that takes grouped products and comparisons of fields over from the CPU: the same values,
// intervals, bits and sums, sooner.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "harness/contract/cells.h"
#include "harness/contract/grouped_product.h"

namespace assay {

/// Each function fills `out` and returns true, or returns false and leaves the work to the CPU: a planted
/// fault, an accumulator or an operand it has no arithmetic for.
struct Engine {
  std::string name;                      // "gpu: NVIDIA H200"
  std::int64_t least_multiply_adds = 0;  // smaller products are not worth the way there and back
  std::function<bool(const GroupedProduct<Interval>& product, std::span<Interval> out)>
      bounded;  // out [rows, n]
  std::function<bool(const GroupedProduct<PredictedValue>& product, std::span<PredictedValue> out)> predicted;
  std::int64_t least_elements = 0;  // smaller fields are compared by the CPU
  std::function<bool(const FieldRows& field, FieldCells& out)> cells = nullptr;  // `out` is sized
};

/// The engine everything is offered to; null, as at the start, for none. Not to be called while one is at
/// work.
void use_engine(std::optional<Engine> engine);
const Engine* engine_in_force();

/// How much the engine in force has taken over.
struct TakenOver {
  std::int64_t products = 0, comparisons = 0;
};
TakenOver taken_by_engine();
void count_product_by_engine();
void count_comparison_by_engine();

}  // namespace assay
