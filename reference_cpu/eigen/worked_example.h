// One token, two experts, H = 2, I = 1: every field of both passes is exact and can be worked out by hand.
#pragma once

#include "reference_cpu/eigen/plain_problem.h"

namespace assay::plain {

/// Equal logits give equal weights. silu(64) is 64 with slope 1, since e^-64 is lost beside 1; silu(0) is 0
/// with slope 1/2.
inline PlainProblem worked_example() {
  PlainProblem p({2, 1, 2, 2, true}, 1);
  p.problem.input = bf16_tensor({1, 2}, {1, 0});
  p.problem.gate = bf16_tensor({2, 2}, {1, 2, 1, 5});
  *p.gate_up_proj = bf16_tensor({2, 2, 2}, {64, 1, 2, 3, 0, 8, 4, 8});
  *p.down_proj = bf16_tensor({2, 2, 1}, {0.5, 1, 0.25, 2});
  p.d_hidden_states = Matrix{{2, 0}};
  return p;
}

}  // namespace assay::plain
