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
template <int kPartials>
__device__ float sum_of_partials(const float (&partial)[kPartials]) {
  float sum = partial[0];
#pragma unroll
  for (int c = 1; c < kPartials; ++c) sum = __fadd_rn(sum, partial[c]);
  return sum;
}

/// Every lane gets the sum. Lane l plays threads l, l + 32, ... of `threads`, a power of two;
/// `sum_of_thread(t)` is what thread t adds. Of a lane's threads those half of all apart are added first,
/// then those a quarter apart, and so on: taken in the order of their reversed bits, so that a sum waits only
/// for the one beside it, and what waits stays in registers.
template <class SumOfThread>
__device__ float sum_of_threads(int threads, const SumOfThread& sum_of_thread) {
  constexpr int kLevels = 4;
  static_assert(32 << kLevels == kThreadsOfBlock, "a level for every halving of what a lane plays");
  const unsigned lane = threadIdx.x % 32;
  if (threads <= 32)
    return sum_of_lanes(static_cast<int>(lane) < threads ? sum_of_thread(static_cast<int>(lane)) : 0.0f);
  const unsigned played = static_cast<unsigned>(threads) / 32;
  float waiting[kLevels];
  float sum = 0.0f;
#pragma unroll 1
  for (unsigned i = 0; i < played; ++i) {
    const unsigned reversed = __brev(i) >> (__clz(static_cast<int>(played)) + 1);
    sum = sum_of_thread(static_cast<int>(lane + reversed * 32));
    bool waits = false;
#pragma unroll
    for (int level = 0; level < kLevels; ++level) {
      if (waits) continue;
      waits = (i >> level & 1) == 0;
      if (waits)
        waiting[level] = sum;
      else
        sum = __fadd_rn(waiting[level], sum);
    }
  }
  return sum_of_lanes(sum);
}

/// Every lane gets the sum. Short rows: thread t adds elements t, t + threads, ... to four partial sums in
/// turn, `term_of(k)` each. Others: it adds element c of vectors t, t + threads, ... to partial sum c, and
/// `terms_of(v, terms)` says what elements 8 v and on add.
template <class TermOf, class TermsOf>
__device__ float row_sum(int length, int threads, const TermOf& term_of, const TermsOf& terms_of) {
  if (length < kWholeVectors)
    return sum_of_threads(threads, [&](int thread) {
      float partial[4] = {};
#pragma unroll 1
      for (int first = thread; first < length; first += 4 * threads)
#pragma unroll
        for (int turn = 0; turn < 4; ++turn) {
          const int k = first + turn * threads;
          if (k < length) partial[turn] = __fadd_rn(partial[turn], term_of(k));
        }
      return sum_of_partials(partial);
    });
  return sum_of_threads(threads, [&](int thread) {
    float partial[8] = {};
#pragma unroll 1
    for (int v = thread; v < length / 8; v += threads) {
      float terms[8];
      terms_of(v, terms);
#pragma unroll
      for (int c = 0; c < 8; ++c) partial[c] = __fadd_rn(partial[c], terms[c]);
    }
    return sum_of_partials(partial);
  });
}

}  // namespace assay::gpu
