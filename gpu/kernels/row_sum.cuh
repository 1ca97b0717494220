// The sum of a row by one warp, in the order in which torch adds it up over the last axis of a bf16 matrix
// (pytorch: ATen/native/cuda/Reduce.cuh): how many of its threads share a row depends on how many rows there
// are. Rows are whole vectors of eight, so that none of them begins between two.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "gpu/kernels/kernels.h"
#include "gpu/kernels/lanes.cuh"

namespace assay::gpu {

inline constexpr int kWholeVectors = 128;  // elements of a row, from which on torch reads it by vectors
inline constexpr int kThreadsOfBlock = 512;

/// Of torch's block, the threads that share one of `rows` rows of `length` elements.
inline int threads_of_row(std::int64_t length, std::int64_t rows) {
  const auto power_of_two_up_to = [](std::int64_t n) {
    return static_cast<std::int64_t>(
        std::bit_floor(static_cast<std::uint64_t>(std::clamp<std::int64_t>(n, 1, kThreadsOfBlock))));
  };
  const std::int64_t most = power_of_two_up_to(length < kWholeVectors ? length : length / 8);
  const std::int64_t rows_of_block =
      std::min(power_of_two_up_to(rows), kThreadsOfBlock / std::min<std::int64_t>(most, 32));
  return static_cast<int>(std::min(most, kThreadsOfBlock / rows_of_block));
}

/// A thread's partial sums, in order.
__device__ inline float sum_of_partials(const float (&partial)[8]) {
  float sum = partial[0];
#pragma unroll
  for (int c = 1; c < 8; ++c) sum = __fadd_rn(sum, partial[c]);
  return sum;
}

/// Every lane gets the sum. `terms_of(v, terms)` says what elements 8 v and on add to it; lane l plays
/// threads l, l + 32, ... of `threads`. Short rows: thread t adds elements t, t + threads, ... to four
/// partial sums in turn. Others: it adds element c of vectors t, t + threads, ... to partial sum c.
template <class TermsOf>
__device__ float row_sum(int length, int threads, const TermsOf& terms_of) {
  const int lane = threadIdx.x % 32;
  const auto sum_of_thread = [&](int thread) {
    float partial[8] = {};
    float terms[8];
    if (length < kWholeVectors) {
      for (int k = thread, turn = 0; k < length; k += threads, turn = (turn + 1) % 4) {
        terms_of(k / 8, terms);
        partial[turn] = __fadd_rn(partial[turn], terms[k % 8]);
      }
    } else {
      for (int v = thread; v < length / 8; v += threads) {
        terms_of(v, terms);
#pragma unroll
        for (int c = 0; c < 8; ++c) partial[c] = __fadd_rn(partial[c], terms[c]);
      }
    }
    return sum_of_partials(partial);
  };
  if (threads <= 32) return sum_of_lanes(lane < threads ? sum_of_thread(lane) : 0.0f);
  float sums[kThreadsOfBlock / 32];
  for (int i = 0; i < threads / 32; ++i) sums[i] = sum_of_thread(lane + i * 32);
  for (int apart = threads / 64; apart > 0; apart /= 2)  // partners that one lane plays
    for (int i = 0; i < apart; ++i) sums[i] = __fadd_rn(sums[i], sums[i + apart]);
  return sum_of_lanes(sums[0]);
}

}  // namespace assay::gpu
