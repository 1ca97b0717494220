// Intervals that a stand-in of an engine keeps in the host's memory: for tests of those who read kept ones.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>

#include "harness/contract/engine.h"
#include "harness/contract/large_vector.h"

namespace assay {

/// `cells` is handed the field with its reference.
inline std::shared_ptr<const KeptIntervals> kept_at_hand(
    LargeVector<Interval> intervals, std::function<bool(const FieldRows&, FieldCells&)> cells = nullptr) {
  const auto all = std::make_shared<const LargeVector<Interval>>(std::move(intervals));
  const auto bring = [all](std::span<const std::int64_t> starts, std::int64_t count,
                           std::span<Interval> out) {
    for (std::size_t i = 0; i < starts.size(); ++i)
      std::copy_n(all->begin() + starts[i], count, out.begin() + static_cast<std::int64_t>(i) * count);
  };
  const auto compare = [all, cells](FieldRows field, FieldCells& out) {
    field.reference = *all;
    return cells && cells(field, out);
  };
  return std::make_shared<const KeptIntervals>(std::ssize(*all), bring, compare);
}

}  // namespace assay
