#include "harness/judge/stretch_intervals.h"

#include "harness/host/phase_timer.h"

namespace assay {

SomeIntervals StretchIntervals::some(std::vector<std::int64_t> starts, std::int64_t count) const {
  SomeIntervals some{std::move(starts), count, nullptr, {}};
  if (!kept_ || !brought_.empty()) {
    some.at_hand = kept_ ? brought_.data() : at_hand_.data();
    return some;
  }
  if (some.starts.empty()) return some;
  const PhaseTimer timer("intervals brought");
  some.brought.resize(some.starts.size() * static_cast<std::size_t>(count));
  kept_->bring(some.starts, count, some.brought);
  return some;
}

SomeIntervals StretchIntervals::block(RowRange rows, std::int64_t width, std::int64_t column,
                                      std::int64_t count) const {
  std::vector<std::int64_t> starts;
  for (std::int64_t r = rows.begin; r < rows.end; ++r) starts.push_back(r * width + column);
  return some(std::move(starts), count);
}

std::span<const Interval> StretchIntervals::all() const {
  if (!kept_) return at_hand_;
  if (brought_.empty()) brought_ = std::move(some({0}, kept_->elements).brought);
  return brought_;
}

}  // namespace assay
