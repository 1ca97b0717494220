#include "gpu/selfcheck_row_sums.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "gpu/device_problem.h"
#include "gpu/kernels/kernels.h"
#include "harness/contract/bf16.h"

namespace assay::gpu {
namespace {

struct RowSumCase {
  std::int64_t hidden, tokens, top_k;
  int threads;  // that share a row in torch's kernel, by its rule worked out by hand
};
constexpr RowSumCase kRowSumCases[] = {
    {2048, 1, 8, 64},  {2048, 3, 3, 64},  {2048, 1, 5, 128}, {2048, 1, 3, 256}, {4096, 1, 1, 512},
    {1024, 2, 1, 128}, {1032, 1, 4, 128}, {2048, 2, 8, 32},  {120, 1, 8, 64},
};

/// What torch's threads add up: eight partial sums a thread over vectors, four over single elements of short
/// rows; then the upper half of the threads onto the lower one, until one is left.
float sum_by_threads(std::span<const float> terms, std::size_t threads) {
  const bool vectors = terms.size() >= 128;
  const std::size_t partials = vectors ? 8 : 4;
  std::vector<float> sums(threads);
  for (std::size_t thread = 0; thread < threads; ++thread) {
    std::vector<float> partial(partials);
    for (std::size_t k = 0; k < terms.size(); ++k) {
      const std::size_t unit = vectors ? k / 8 : k;
      if (unit % threads == thread) partial[vectors ? k % 8 : unit / threads % 4] += terms[k];
    }
    sums[thread] = partial[0];
    for (std::size_t c = 1; c < partials; ++c) sums[thread] += partial[c];
  }
  for (std::size_t half = threads / 2; half > 0; half /= 2)
    for (std::size_t thread = 0; thread < half; ++thread) sums[thread] += sums[thread + half];
  return sums[0];
}

/// d_out [T, H] and rows [S, H] in slot order. Elements come in pairs whose products cancel, of magnitudes so
/// far apart that every sum of some is rounded.
struct RowSumProblem {
  std::vector<Bf16> d_out, values;

  explicit RowSumProblem(const RowSumCase& one) {
    const auto hidden = static_cast<std::size_t>(one.hidden);
    const auto tokens = static_cast<std::size_t>(one.tokens);
    std::mt19937 random(static_cast<unsigned>(one.hidden + one.top_k));
    const auto drawn = [&](int range) {
      const int exponent = static_cast<int>(random() % static_cast<unsigned>(2 * range + 1)) - range;
      return std::ldexp(1.0f + static_cast<float>(random() % 128) / 128, exponent);
    };
    std::vector<std::size_t> order(hidden);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::shuffle(order.begin(), order.end(), random);
    const auto fill = [&](std::vector<Bf16>& rows, std::size_t count, int range, float second) {
      rows.resize(count * hidden);
      for (std::size_t row = 0; row < count; ++row)
        for (std::size_t pair = 0; pair < hidden / 2; ++pair) {
          const float value = drawn(range);
          rows[row * hidden + order[2 * pair]] = round_to_bf16(value);
          rows[row * hidden + order[2 * pair + 1]] = round_to_bf16(second * value);
        }
    };
    fill(d_out, tokens, 2, 1.0f);
    fill(values, tokens * static_cast<std::size_t>(one.top_k), 12, -1.0f);
  }
};

std::vector<Bf16> expected(const RowSumCase& one, const RowSumProblem& problem, Rounding rounding,
                           int threads) {
  const auto hidden = static_cast<std::size_t>(one.hidden);
  std::vector<Bf16> sums(static_cast<std::size_t>(one.tokens * one.top_k));
  std::vector<float> terms(hidden);
  for (std::size_t slot = 0; slot < sums.size(); ++slot) {
    for (std::size_t k = 0; k < hidden; ++k) {
      const float product = to_float(problem.d_out[slot / static_cast<std::size_t>(one.top_k) * hidden + k]) *
                            to_float(problem.values[slot * hidden + k]);
      terms[k] = rounding == Rounding::Hf ? to_float(round_to_bf16(product)) : product;
    }
    sums[slot] = round_to_bf16(sum_by_threads(terms, static_cast<std::size_t>(threads)));
  }
  return sums;
}

/// By the pass of its own, and by the one that writes the rows' gradients, too.
std::vector<std::pair<const char*, std::vector<Bf16>>> found(const RowSumCase& one,
                                                             const RowSumProblem& problem,
                                                             Rounding rounding) {
  const Sizes sizes{{one.hidden, 8, one.top_k, one.top_k, true}, one.tokens};
  const std::int64_t slots = sizes.slots();
  std::vector<std::int32_t> row_of_slot(static_cast<std::size_t>(slots));
  std::iota(row_of_slot.begin(), row_of_slot.end(), 0);
  Buffer<bf16> d_out("d_out", one.tokens * one.hidden), values("rows", slots * one.hidden);
  Buffer<bf16> weights("weights", slots), d_rows("d_rows", slots * one.hidden);
  Buffer<std::int32_t> rows("row_of_slot", slots);
  d_out.upload(problem.d_out.data(), 0, d_out.size());
  values.upload(problem.values.data(), 0, values.size());
  rows.upload(row_of_slot.data(), 0, slots);
  const Stream stream;
  const auto run = [&](const auto& launch) {
    Buffer<bf16> to("d_topk_weights", slots);
    ASSAY_CUDA(cudaDeviceSynchronize());
    launch(to.data());
    ASSAY_CUDA(cudaStreamSynchronize(stream));
    to.verify_guards();
    std::vector<Bf16> sums(static_cast<std::size_t>(slots));
    to.download(sums.data());
    return sums;
  };
  return {{"alone", run([&](bf16* to) {
             merge_grad_weights(d_out.data(), values.data(), nullptr, to, rounding, sizes, stream);
           })},
          {"with the rows'", run([&](bf16* to) {
             merge_grad(d_out.data(), values.data(), true, rows.data(), weights.data(), d_rows.data(), to,
                        rounding, sizes, stream);
           })}};
}

std::int64_t differing(const std::vector<Bf16>& a, const std::vector<Bf16>& b) {
  std::int64_t count = 0;
  for (std::size_t i = 0; i < a.size(); ++i) count += a[i] != b[i];
  return count;
}

}  // namespace

std::int64_t count_row_sums_that_differ() {
  std::int64_t total = 0;
  for (const RowSumCase& one : kRowSumCases) {
    const RowSumProblem problem(one);
    std::printf("sums of %lld rows of %lld by %d threads:", static_cast<long long>(one.tokens * one.top_k),
                static_cast<long long>(one.hidden), one.threads);
    for (const Rounding rounding : {Rounding::Hf, Rounding::FusedFp32}) {
      const std::vector<Bf16> sums = expected(one, problem, rounding, one.threads);
      if (differing(sums, expected(one, problem, rounding, one.threads / 4)) == 0) {
        std::printf(" the order does not matter;");
        ++total;
      }
      for (const auto& [who, values] : found(one, problem, rounding)) {
        const std::int64_t wrong = differing(values, sums);
        total += wrong;
        std::printf(" %s %lld differ;", who, static_cast<long long>(wrong));
      }
    }
    std::printf("\n");
  }
  return total;
}

}  // namespace assay::gpu
