// The reference's intervals of a stretch of rows: at hand, or kept by an engine (engine.h) and brought where
// they are read.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "harness/contract/engine.h"
#include "harness/contract/field.h"
#include "harness/contract/large_vector.h"

namespace assay {

/// Some of them: neighbours from each of these elements on.
struct SomeIntervals {
  std::vector<std::int64_t> starts;
  std::int64_t count = 0;
  const Interval* at_hand = nullptr;
  LargeVector<Interval> brought;  // [starts, count], where none is at hand

  const Interval* from(std::size_t i) const {
    return at_hand != nullptr ? at_hand + starts[i] : brought.data() + static_cast<std::int64_t>(i) * count;
  }
};

class StretchIntervals {
 public:
  template <std::convertible_to<std::span<const Interval>> Range>
  StretchIntervals(const Range& at_hand) : at_hand_(at_hand) {}  // NOLINT: all are read alike
  explicit StretchIntervals(std::shared_ptr<const KeptIntervals> kept) : kept_(std::move(kept)) {}

  std::int64_t size() const { return kept_ ? kept_->elements : std::ssize(at_hand_); }
  /// Null where they are at hand.
  const KeptIntervals* kept() const { return kept_.get(); }

  SomeIntervals some(std::vector<std::int64_t> starts, std::int64_t count) const;
  /// `count` columns from `column` on of each of the rows, which are `width` wide.
  SomeIntervals block(RowRange rows, std::int64_t width, std::int64_t column, std::int64_t count) const;
  /// For those who look at each. Brought once; not by several threads at a time.
  std::span<const Interval> all() const;

 private:
  std::span<const Interval> at_hand_;
  std::shared_ptr<const KeptIntervals> kept_;
  mutable LargeVector<Interval> brought_;
};

}  // namespace assay
