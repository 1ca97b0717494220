// A device that takes grouped products and comparisons of fields over from the CPU: the same values,
// intervals, bits and sums, sooner.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "harness/contract/cells.h"
#include "harness/contract/grouped_product.h"

namespace assay {

/// How much an engine has taken over.
struct TakenOver {
  std::atomic<std::int64_t> products = 0;
  std::atomic<std::int64_t> comparisons = 0;
};

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
  std::shared_ptr<TakenOver> taken = std::make_shared<TakenOver>();  // copies of an engine count together
};

/// The same engine, counting from zero.
inline Engine counting_afresh(Engine engine) {
  engine.taken = std::make_shared<TakenOver>();
  return engine;
}

}  // namespace assay
