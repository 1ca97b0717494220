// The sum of a row's products as four lanes of a tensor core's accumulator hold them.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>

#include "reference_cpu/arithmetic.h"

namespace assay {

/// sum of a[c] b[c] in fp32, columns in blocks of 64, the last one as short as it comes. In a block column c
/// belongs to lane (c % 8) / 2 of four, which starts from 0 and takes its columns ascending, sum = fma(a, b,
/// sum); the block is (lane 0 + lane 1) + (lane 2 + lane 3). Blocks are added ascending, the first one being
/// the start. Those are the columns that one lane of a quad holds of an mma or wgmma accumulator: a kernel
/// whose tiles are multiples of 64 columns wide gives these bits whatever their width.
inline PredictedValue row_sum_quad(std::span<const PredictedValue> a, std::span<const PredictedValue> b) {
  constexpr std::size_t kBlock = 64;
  PredictedValue sum;
  for (std::size_t first = 0; first < a.size(); first += kBlock) {
    float lanes[4] = {};
    for (std::size_t c = first; c < a.size() && c < first + kBlock; ++c) {
      float& lane = lanes[c % 8 / 2];
      lane = std::fma(a[c].value, b[c].value, lane);
      sum.undetermined = sum.undetermined || a[c].undetermined || b[c].undetermined;
    }
    const float block = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    sum.value = first == 0 ? block : sum.value + block;
  }
  return sum;
}

}  // namespace assay
