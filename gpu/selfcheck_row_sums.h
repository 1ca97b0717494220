// The gradient of the routing weights: sums of rows in torch's order.
#pragma once

#include <cstdint>

namespace assay::gpu {

/// Prints a line per size and returns how many sums differ from what the host adds in torch's order, term by
/// term: rows so few that more than a warp's threads share one, and as many as a warp takes. Rows cancel, so
/// that other orders give other sums; where they do not, that counts as well.
std::int64_t count_row_sums_that_differ();

}  // namespace assay::gpu
