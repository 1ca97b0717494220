// Shrinks a failing part of a problem to a small one that still fails: delta debugging (Zeller and
// Hildebrandt, IEEE TSE 28(2), 2002) over tokens and experts, bisection from both ends over columns.
#pragma once

#include <functional>
#include <string>

#include "harness/contract/subproblem.h"

namespace assay {

struct ShrinkLimits {
  std::int64_t fewest_experts = 1;  // top_k
  std::int64_t column_step = 0;     // H and I change by multiples of it; 0: columns must stay
};

struct Shrink {
  std::function<bool(const Part&)> fails;  // whether the part fails as the whole does
  std::function<std::vector<std::int64_t>(const Part&)> used_experts;  // those its tokens select, ascending
  std::function<void(const Part&, std::string_view what)>
      progress;  // after each smaller part found; may be empty
};

/// A part that fails, from which no single token, no single expert and no `column_step` at either end can be
/// taken. `start` must fail.
Part shrink(Part start, const ShrinkLimits& limits, const Shrink& shrink);

}  // namespace assay
