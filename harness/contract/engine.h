// A device that takes grouped products and comparisons of fields over from the CPU: the same values,
// intervals, bits and sums, sooner.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "harness/contract/cells.h"
#include "harness/contract/grouped_product.h"

namespace assay {

/// How much an engine has taken over.
struct TakenOver {
  std::atomic<std::int64_t> products = 0;
  std::atomic<std::int64_t> comparisons = 0;
};

/// What a product's intervals still lack before anything is compared with them (element_constants.h).
struct CommonErrors {
  // share of with_common_error: their sum
  std::vector<double> of_rows;     // [rows]
  std::vector<double> of_columns;  // [n]
  bool above_underflow = false;    // with_noise_above_underflow follows
};

/// Intervals of a product that an engine made and keeps: fields too large to be held, or sent, whole. Several
/// threads may call its functions at a time, as long as the engine lives.
struct KeptIntervals {
  std::int64_t elements = 0;
  /// out [starts, count]: `count` neighbours from each of these elements on.
  std::function<void(std::span<const std::int64_t> starts, std::int64_t count, std::span<Interval> out)>
      bring;
  /// Engine::cells of a field with these intervals; its `reference` is empty.
  std::function<bool(const FieldRows& field, FieldCells& out)> cells;
};

/// Each function fills `out` and returns true, or returns false and leaves the work to the CPU: a planted
/// fault, an accumulator or an operand it has no arithmetic for. Several threads call them at a time.
struct Engine {
  std::string name;  // "gpu: NVIDIA H200"
  // Smaller products, and smaller fields, are not worth the way there and back; parts of larger ones are,
  // down to a kLeastPart-th of these.
  std::int64_t least_multiply_adds = 0;
  std::function<bool(const GroupedProduct<Interval>& product, std::span<Interval> out)>
      bounded;  // out [rows, n]
  std::function<bool(const GroupedProduct<PredictedValue>& product, std::span<PredictedValue> out)> predicted;
  std::int64_t least_elements = 0;
  std::function<bool(const FieldRows& field, FieldCells& out)> cells = nullptr;  // `out` is sized
  /// A product of one group, as `bounded` makes it, and what it still lacks. Null: left to the others.
  std::function<std::shared_ptr<const KeptIntervals>(const GroupedProduct<Interval>& product,
                                                     const CommonErrors& errors)>
      kept = nullptr;
  std::shared_ptr<TakenOver> taken = std::make_shared<TakenOver>();  // copies of an engine count together
};

inline constexpr std::int64_t kLeastPart = 1024;

/// Whether `work` of `whole`, which it may be a part of, is worth the way for which `least` is.
constexpr bool worth_the_way(std::int64_t work, std::int64_t whole, std::int64_t least) {
  return work >= least || (whole >= least && work >= least / kLeastPart);
}

/// The same engine, counting from zero.
inline Engine counting_afresh(Engine engine) {
  engine.taken = std::make_shared<TakenOver>();
  return engine;
}

}  // namespace assay
