#include "reference_cpu/expf_sm90.h"

#include <bit>
#include <cmath>
#include <iterator>
#include <vector>

#include <zlib.h>

#include "data_dir.h"
#include "harness/contract/error.h"

// The table travels inside the binary; its provenance stands beside it (data/ex2_sm90.json).
__asm__(
    ".section .rodata\n"
    "assay_ex2_sm90_begin: .incbin \"" ASSAY_DATA_DIR
    "/ex2_sm90.bin.z\"\n"
    "assay_ex2_sm90_end: .byte 0\n"
    ".previous\n");
extern "C" const unsigned char assay_ex2_sm90_begin[], assay_ex2_sm90_end[];

namespace assay {
namespace {

constexpr std::size_t kPoints = std::size_t{1} << 24;

std::vector<unsigned char> inflate_table() {
  std::vector<unsigned char> table(kPoints / 4);
  uLongf size = table.size();
  const int status = uncompress(table.data(), &size, assay_ex2_sm90_begin,
                                static_cast<uLong>(assay_ex2_sm90_end - assay_ex2_sm90_begin));
  if (status != Z_OK || size != table.size())
    throw InputError("the embedded table of ex2 does not decompress to 2^22 bytes");
  return table;
}

// ex2 at -1, -2, ... -256 times 2^-24 minus the correctly rounded 2^r, recorded with the table
// (gpu/probe/probe_ex2.cu).
// clang-format off
constexpr signed char kBelowZero[] = {
    1, -1, 0, -1, -1, -1, 0, 0, 0, -1, 0, -1, 0, -1, -1, -1, 0, -1, 0, -1, 0, -1, 0, -1, -1, -1, 0, -1, 0, -1, -1, -1,
    0, 0, 0, -1, 0, -1, 0, -1, -1, -1, 0, -1, 0, -1, 0, -1, 0, -1, -1, -1, 0, -1, 0, -1, 0, -1, 0, 0, 0, -1, 0, -1,
    0, -1, -1, -1, 0, 0, 0, -1, 0, -1, 0, -1, -1, -1, 0, -1, 0, -1, 0, -1, 0, 0, 0, -1, 0, -1, 0, -1, -1, -1, 0, 0,
    0, -1, 0, -1, 0, -1, -1, -1, 0, -1, 0, -1, 0, -1, 0, 0, 0, -1, 0, -1, 0, -1, -1, -1, 0, 0, 0, -1, 0, -1, 0, -1,
    -1, -1, 0, -1, 0, -1, 0, -1, 0, -1, -1, -1, 0, -1, 0, -1, 0, -1, 0, 0, 0, -1, 0, -1, 0, -1, -1, -1, 0, 0, 0, -1,
    0, -1, 0, -1, -1, -1, 0, -1, 0, -1, 0, -1, 0, 0, 0, -1, 0, -1, 0, -1, -1, -1, 0, 0, 0, -1, 0, -1, 0, 0, 0, -1,
    0, -1, 0, -1, 0, -1, 0, 0, 0, -1, 0, -1, 0, -1, -1, -1, 0, 0, 0, -1, 0, -1, 0, -1, -1, -1, 0, -1, 0, -1, 0, -1,
    0, -1, -1, -1, 0, -1, 0, -1, 0, -1, 0, 0, 0, -1, 0, -1, 0, -1, -1, -1, 0, 0, 0, -1, 0, -1, 0, 0, 0, -1, 0, -1,
};
// clang-format on
constexpr float kLowestRecorded = -static_cast<float>(std::size(kBelowZero)) * 0x1p-24f;

float moved(float nearest, int difference) {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(nearest) + static_cast<std::uint32_t>(difference));
}

}  // namespace

std::span<const unsigned char> ex2_table() {
  static const std::vector<unsigned char> table = inflate_table();
  return table;
}

float ex2_sm90(float r) {
  static const std::span<const unsigned char> table = ex2_table();
  const auto steps = static_cast<std::int32_t>(static_cast<double>(r) * kPoints);  // truncates toward zero
  const auto nearest = [](std::int32_t k) {
    return static_cast<float>(std::exp2(static_cast<double>(k) / kPoints));
  };
  if (steps < 0) return moved(nearest(steps), kBelowZero[-steps - 1]);
  const auto index = static_cast<std::uint32_t>(steps) & (kPoints - 1);
  const int difference = ((table[index / 4] >> (2 * (index % 4))) & 3) - 1;
  return std::ldexp(moved(nearest(static_cast<std::int32_t>(index)), difference), steps >> 24);
}

PredictedValue expf_sm90(float x) {
  if (std::isnan(x)) return {x, true};
  // As compiled for sm_90: t = saturate(fma(x, c, 0.5)), j = fma(t, 252, 12582913) rounded down, k = j -
  // 12583039. That is k = floor(x log2 e) inside [-126, 126], but for the rounding of t: next to an integer r
  // may be as low as -7.6e-6.
  float t = std::fma(x, 0.0057249800302088260651f, 0.5f);
  t = t < 0.0f ? 0.0f : t > 1.0f ? 1.0f : t;
  const double exact = static_cast<double>(t) * 252.0 + 12582913.0;  // t has 24 bits: exact in float64
  const auto k = static_cast<float>(std::floor(exact) - 12583039.0);
  float r = std::fma(x, 1.4426950216293334961f, -k);
  r = std::fma(x, 1.925963033500011079e-08f, r);
  const int exponent = static_cast<int>(k);
  if (r >= 2.0f)
    return {std::ldexp(static_cast<float>(std::exp2(static_cast<double>(r))), exponent),
            !std::isinf(x) && x < 89.0f};
  if (r < kLowestRecorded)
    return {std::ldexp(static_cast<float>(std::exp2(static_cast<double>(r))), exponent), true};
  return {std::ldexp(ex2_sm90(r), exponent), false};
}

}  // namespace assay
