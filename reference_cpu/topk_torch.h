// torch.topk on CUDA: which of equal values it takes, and the order in which it writes them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace assay {

/// Indices of the `top_k` largest of `values` (no NaN), in torch's order: the greater ones than the K-th
/// largest in index order, then equals in index order as many as fit; then a bitonic sort of width 32,
/// descending, that may exchange equals. Measured for top_k <= 32 and up to 1,024 values on an H200.
std::vector<std::int32_t> topk_torch(std::span<const float> values, std::int64_t top_k);

/// The same set with equals broken by the lowest index, descending: the tie rule of our own pipelines.
std::vector<std::int32_t> topk_lowest_index(std::span<const double> values, std::int64_t top_k);

}  // namespace assay
