#include "reference_cpu/expf_sm90.h"

#include <bit>
#include <cmath>
#include <vector>

#include <zlib.h>

#include "harness/error.h"

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
  if (status != Z_OK || size != table.size()) throw InputError("the embedded table of ex2 does not decompress to 2^22 bytes");
  return table;
}

}  // namespace

std::span<const unsigned char> ex2_table() {
  static const std::vector<unsigned char> table = inflate_table();
  return table;
}

float ex2_sm90(float r) {
  static const std::span<const unsigned char> table = ex2_table();
  const auto scaled = static_cast<std::uint32_t>(static_cast<double>(r) * kPoints);  // truncates; r >= 0
  const std::uint32_t index = scaled & (kPoints - 1);
  const auto nearest = static_cast<float>(std::exp2(static_cast<double>(index) / kPoints));
  const int difference = ((table[index / 4] >> (2 * (index % 4))) & 3) - 1;
  const float fraction = std::bit_cast<float>(std::bit_cast<std::uint32_t>(nearest) + static_cast<std::uint32_t>(difference));
  return std::ldexp(fraction, static_cast<int>(scaled >> 24));
}

PredictedValue expf_sm90(float x) {
  if (std::isnan(x)) return {x, true};
  // h200-bits section 4: t = saturate(fma(x, c, 0.5)), j = fma(t, 252, 12582913) rounded down, k = j - 12583039.
  // That is k = floor(x log2 e) inside [-126, 126]; the rounding of t can move k by one at the boundary, so it is replayed.
  float t = std::fma(x, 0.0057249800302088260651f, 0.5f);
  t = t < 0.0f ? 0.0f : t > 1.0f ? 1.0f : t;
  const double exact = static_cast<double>(t) * 252.0 + 12582913.0;  // t has 24 bits: exact in float64
  const auto k = static_cast<float>(std::floor(exact) - 12583039.0);
  float r = std::fma(x, 1.4426950216293334961f, -k);
  r = std::fma(x, 1.925963033500011079e-08f, r);
  if (r >= 2.0f) return {std::isinf(x) || x > 88.8f ? std::numeric_limits<float>::infinity() : std::ldexp(std::exp2(r), static_cast<int>(k)), x < 88.8f};
  if (r < -0x1p-20f) return {std::ldexp(static_cast<float>(std::exp2(static_cast<double>(r))), static_cast<int>(k)), true};
  const float power = ex2_sm90(r < 0.0f ? 0.0f : r);
  return {std::ldexp(power, static_cast<int>(k)), false};
}

}  // namespace assay
