// The rows of a product as the engine's kernels walk them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "gpu/engine/engine_kernels.h"
#include "harness/contract/grouped_product.h"

namespace assay::gpu {

/// Tiles of at most that many rows, each of one group.
template <class Value>
std::vector<ProductTile> tiles_of(const GroupedProduct<Value>& product, std::int64_t rows_of_tile) {
  std::vector<ProductTile> tiles;
  for (std::size_t g = 0; g + 1 < product.offsets.size(); ++g)
    for (std::int64_t first = product.offsets[g]; first < product.offsets[g + 1]; first += rows_of_tile)
      tiles.push_back({static_cast<std::int32_t>(g), static_cast<std::int32_t>(first),
                       static_cast<std::int32_t>(std::min(rows_of_tile, product.offsets[g + 1] - first))});
  return tiles;
}

template <class Value>
std::int64_t elements_of(const GroupedProduct<Value>& product) {
  return std::ssize(product.source) * product.n;
}

/// Sizes the kernels index with: rows fit an int32, row tiles a grid, every source row exists.
template <class Value>
bool fits(const GroupedProduct<Value>& product) {
  if (product.k <= 0 || product.n <= 0 || product.source.empty() ||
      product.left.size() % static_cast<std::size_t>(product.k) != 0)
    return false;
  const auto left_rows = static_cast<std::int64_t>(product.left.size()) / product.k;
  const auto rows = static_cast<std::int64_t>(product.source.size());
  return rows < (std::int64_t{1} << 20) && product.offsets.back() == rows && product.offsets.front() == 0 &&
         std::ranges::all_of(product.source, [&](std::int32_t s) { return s >= 0 && s < left_rows; });
}

}  // namespace assay::gpu
