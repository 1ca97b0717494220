#include "harness/judge/shrink.h"

#include <algorithm>

namespace assay {
namespace {

class Shrinker {
 public:
  Shrinker(Part start, const ShrinkLimits& limits, const Shrink& shrink)
      : part_(std::move(start)), limits_(limits), shrink_(shrink) {}

  Part run() {
    // What went last may open the way for what went first: until nothing changes.
    for (bool changed = true; changed;) {
      changed = list(&Part::tokens, 1, "tokens");
      changed = experts() || changed;
      if (limits_.column_step == 0) continue;
      changed = columns(&Part::hidden, "H") || changed;
      changed = columns(&Part::intermediate, "I") || changed;
    }
    return std::move(part_);
  }

 private:
  bool take(Part smaller, std::string_view what) {
    if (!shrink_.fails(smaller)) return false;
    part_ = std::move(smaller);
    if (shrink_.progress) shrink_.progress(part_, what);
    return true;
  }

  /// Leaves out halves, then quarters, ... then single elements, as long as the rest still fails.
  bool list(std::vector<std::int64_t> Part::* which, std::int64_t fewest, std::string_view what) {
    bool changed = false;
    const auto size = [&] { return static_cast<std::int64_t>((part_.*which).size()); };
    for (std::int64_t chunk = (size() + 1) / 2; size() > fewest;) {
      bool left_out = false;
      for (std::int64_t begin = 0; begin < size();) {
        const std::int64_t end = std::min(size(), begin + chunk);
        Part smaller = part_;
        auto& items = smaller.*which;
        items.erase(items.begin() + begin, items.begin() + end);
        if (static_cast<std::int64_t>(items.size()) >= fewest && take(std::move(smaller), what))
          left_out = true;
        else
          begin = end;
      }
      changed = changed || left_out;
      if (chunk == 1 && !left_out) break;
      chunk = std::max<std::int64_t>(1, std::min(chunk, size()) / 2);
    }
    return changed;
  }

  bool experts() {
    auto used = shrink_.used_experts(part_);
    // Experts nobody uses must fill up what the tokens need at least.
    for (const auto expert : part_.experts)
      if (static_cast<std::int64_t>(used.size()) < limits_.fewest_experts &&
          std::ranges::find(used, expert) == used.end())
        used.push_back(expert);
    std::ranges::sort(used);
    Part smaller = part_;
    smaller.experts = used;
    const bool unused_gone = used.size() < part_.experts.size() && take(std::move(smaller), "experts");
    return list(&Part::experts, limits_.fewest_experts, "experts") || unused_gone;
  }

  bool columns(Stretch Part::* which, std::string_view what) {
    bool changed = false;
    const std::int64_t step = limits_.column_step;
    for (std::int64_t chunk = std::max((part_.*which).count / 2 / step, std::int64_t{1}) * step;;) {
      bool cut = false;
      for (const bool from_end : {true, false}) {
        while ((part_.*which).count > chunk) {
          Part smaller = part_;
          (smaller.*which).count -= chunk;
          if (!from_end) (smaller.*which).begin += chunk;
          if (!take(std::move(smaller), what)) break;
          cut = true;
        }
      }
      changed = changed || cut;
      if (chunk == step && !cut) return changed;
      chunk = std::max(chunk / 2 / step, std::int64_t{1}) * step;
    }
  }

  Part part_;
  const ShrinkLimits& limits_;
  const Shrink& shrink_;
};

}  // namespace

Part shrink(Part start, const ShrinkLimits& limits, const Shrink& shrink) {
  return Shrinker(std::move(start), limits, shrink).run();
}

}  // namespace assay
