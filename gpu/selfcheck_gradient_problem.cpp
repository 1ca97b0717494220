#include "gpu/selfcheck_gradient_problem.h"

#include <algorithm>
#include <numeric>
#include <random>

namespace assay::gpu {
namespace {

// Rows at the edges of steps of 16, of stages of 64 and of tiles of 128 and 144; NaN before and behind them.
const GradientCase kGradientCases[] = {
    {"tails", 200, 104, 2, {0, 1, 15, 16, 17, 33, 127, 128, 129, 0}},
    {"tails, NaN beside", 512, 264, 2, {0, 1, 15, 16, 17, 33, 127, 128, 129, 0}, 4},
    {"NaN behind", 264, 512, 1, {63, 64, 65, 143, 144, 145, 31}, 6},
    {"one takes all", 256, 128, 4, {0, 0, 700, 0}},
    {"every expert takes all", 320, 96, 5, {37, 37, 37, 37, 37}},
    {"no rows", 64, 32, 2, {0, 0, 0}},
    {"one row", 64, 32, 1, {0, 0, 1, 0}},
    {"few tokens, NaN between", 512, 256, 4, {16, 16, 0, 1, 15, 16}, 3},
    {"many rows", 512, 768, 4, {1000, 3, 517, 528}, 1},
};

Sizes sizes_of(const GradientCase& one) {
  Sizes sizes{};
  sizes.config = {one.hidden, one.inter, static_cast<std::int64_t>(one.counts.size()), one.top_k, true};
  sizes.tokens = std::accumulate(one.counts.begin(), one.counts.end(), std::int64_t{0}) / one.top_k;
  return sizes;
}

}  // namespace

std::span<const GradientCase> gradient_cases() { return kGradientCases; }

Buffer<bf16> random_buffer(const char* name, std::int64_t count, std::uint64_t seed, std::int64_t nan_first,
                           std::int64_t nan_end) {
  std::mt19937_64 random(seed);
  std::vector<std::uint16_t> bits(static_cast<std::size_t>(count));
  for (auto& value : bits) {
    // Signed, between 1/4 and 4.
    const std::uint64_t word = random();
    value = static_cast<std::uint16_t>((word & 0x8000) | (0x3e80 + (word >> 16) % 0x200));
  }
  std::fill(bits.begin() + nan_first, bits.begin() + nan_end, std::uint16_t{0x7fc0});
  Buffer<bf16> buffer(name, count);
  buffer.upload(bits.data(), 0, count);
  return buffer;
}

GradientProblem::GradientProblem(const GradientCase& one)
    : sizes(sizes_of(one)),
      routing(sizes),
      down_proj(random_buffer("down_proj", experts() * one.hidden * one.inter, 1)),
      gate_up_proj(random_buffer("gate_up_proj", experts() * 2 * one.inter * one.hidden, 2)),
      x(random_buffer("x", sizes.tokens * one.hidden, 3)) {
  const auto rows_of = [&](const char* name, std::int64_t width, std::uint64_t seed) {
    std::int64_t first = 0;
    std::int64_t end = 0;
    if (one.nan_expert >= 0) {
      const auto expert = one.counts.begin() + one.nan_expert;
      first = std::accumulate(one.counts.begin(), expert, std::int64_t{0});
      end = first + *expert;
    }
    return random_buffer(name, sizes.slots() * width, seed, first * width, end * width);
  };
  permuted = rows_of("permuted", one.hidden, 4);
  d_second_gemm = rows_of("d_second_gemm", one.hidden, 5);
  first_gemm = rows_of("first_gemm", 2 * one.inter, 6);
  intermediate = rows_of("intermediate", one.inter, 7);
  given = rows_of("given d_first_gemm", 2 * one.inter, 8);
  std::vector<std::int32_t> slots(static_cast<std::size_t>(sizes.slots()));
  std::iota(slots.begin(), slots.end(), 0);
  std::shuffle(slots.begin(), slots.end(), std::mt19937_64(9));
  routing.gather_indices.upload(slots.data(), 0, sizes.slots());
  routing.counts.upload(one.counts.data(), 0, experts());
}

}  // namespace assay::gpu
