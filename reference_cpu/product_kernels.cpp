// Compiled three times, with ASSAY_KERNELS naming the set. Only raw pointers and vector types here: an inline function
// shared with other files could be emitted for a CPU that cannot run it.
#include "reference_cpu/product_kernels.h"

namespace assay {
namespace {

using Float16 = float __attribute__((vector_size(64)));
using Int16 = std::int32_t __attribute__((vector_size(64)));
using Double16 = double __attribute__((vector_size(128)));
using Long16 = std::int64_t __attribute__((vector_size(128)));

constexpr std::int64_t kStep = 16;              // products a tensor-core step aligns together
constexpr std::int32_t kFractionBits = 25;      // kept of each addend after alignment
constexpr std::int32_t kLowestAlignment = -102; // below, scale factors leave the range of normal numbers: undetermined
constexpr std::int32_t kHighestAlignment = 126;

template <class V>
V load(const void* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof(V));
  return value;
}

template <class V>
void save(void* to, V value) {
  __builtin_memcpy(to, &value, sizeof(V));
}

template <int kRows>
void bounded_rows(const Panel& panel, const double* const* a, const float* const* g, double* ref, float* spread) {
  Double16 sum[kRows] = {};
  Float16 bound[kRows] = {};
  for (std::int64_t k = 0; k < panel.k; ++k) {
    const auto b = load<Float16>(panel.values + k * kPanelColumns);
    const Double16 wide = __builtin_convertvector(b, Double16);
    const auto magnitude = (Float16)((Int16)b & 0x7fffffff);
    for (int r = 0; r < kRows; ++r) {
      sum[r] += a[r][k] * wide;
      bound[r] += g[r][k] * magnitude;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    save(ref + r * kPanelColumns, sum[r]);
    save(spread + r * kPanelColumns, bound[r]);
  }
}

void bounded(const Panel& panel, const double* const* a, const float* const* g, int rows, double* ref, float* spread) {
  rows == 2 ? bounded_rows<2>(panel, a, g, ref, spread) : bounded_rows<1>(panel, a, g, ref, spread);
}

// The exact products and the running sum are aligned to the largest exponent among them (a product's exponent is
// e_a + e_b, not normalised), each truncated after 25 fractional bits, added exactly, and the result truncated to fp32.
// An addend is below 2^27 in units of the last kept bit: eight of them fit an int32, two int32 sums are exact in float64.
void hopper(const Panel& panel, const float* a, const std::int32_t* a_exponents, std::int64_t begin, std::int64_t end,
            float* sums, std::int32_t* flags) {
  Float16 sum = {};
  Int16 outside = {};
  for (std::int64_t k0 = begin; k0 < end; k0 += kStep) {
    const Int16 sum_exponent = (((Int16)sum >> 23) & 0xff) - 127;
    Int16 top = sum == 0.0f ? Int16{} + kZeroExponent : sum_exponent;
#pragma GCC unroll 16
    for (int i = 0; i < kStep; ++i) {
      const Int16 e = load<Int16>(panel.exponents + (k0 + i) * kPanelColumns) + a_exponents[k0 + i];
      top = e > top ? e : top;
    }
    outside |= ((top < kLowestAlignment) & (top > kZeroExponent / 2)) | (top > kHighestAlignment);
    top = top < kLowestAlignment ? Int16{} + kLowestAlignment : top;
    const auto scale = (Float16)((kFractionBits + 127 - top) << 23);
    Int16 low = __builtin_convertvector(sum * scale, Int16);
    Int16 high = {};
#pragma GCC unroll 8
    for (int i = 0; i < kStep / 2; ++i) {
      const auto b = load<Float16>(panel.values + (k0 + i) * kPanelColumns);
      low += __builtin_convertvector(b * a[k0 + i] * scale, Int16);
    }
#pragma GCC unroll 8
    for (int i = kStep / 2; i < kStep; ++i) {
      const auto b = load<Float16>(panel.values + (k0 + i) * kPanelColumns);
      high += __builtin_convertvector(b * a[k0 + i] * scale, Int16);
    }
    Double16 total = __builtin_convertvector(low, Double16) + __builtin_convertvector(high, Double16);
    total = (Double16)((Long16)total & ~((std::int64_t{1} << 29) - 1));  // 24 significant bits, toward zero
    const Long16 exponent = __builtin_convertvector(top, Long16) + (1023 - kFractionBits);
    sum = __builtin_convertvector(total * (Double16)(exponent << 52), Float16);
  }
  save(sums, sum);
  save(flags, outside);
}

void sequential(const Panel& panel, const float* a, float* sums) {
  Float16 sum = {};
  for (std::int64_t k = 0; k < panel.k; ++k) sum += load<Float16>(panel.values + k * kPanelColumns) * a[k];
  save(sums, sum);
}

Float16 pairwise_sum(const Panel& panel, const float* a, std::int64_t begin, std::int64_t count) {
  if (count == 0) return Float16{};
  if (count == 1) return load<Float16>(panel.values + begin * kPanelColumns) * a[begin];
  std::int64_t half = 1;
  while (half * 2 < count) half *= 2;
  return pairwise_sum(panel, a, begin, half) + pairwise_sum(panel, a, begin + half, count - half);
}

void pairwise(const Panel& panel, const float* a, float* sums) { save(sums, pairwise_sum(panel, a, 0, panel.k)); }

void bf16_sequential(const Panel& panel, const float* a, float* sums) {
  Float16 sum = {};
  for (std::int64_t k = 0; k < panel.k; ++k) {
    sum += load<Float16>(panel.values + k * kPanelColumns) * a[k];
    const auto bits = (Int16)sum;
    sum = (Float16)((bits + 0x7fff + ((bits >> 16) & 1)) & ~0xffff);
  }
  save(sums, sum);
}

#define ASSAY_STRING(x) #x
#define ASSAY_NAME(x) ASSAY_STRING(x)

}  // namespace

extern const ProductKernels ASSAY_KERNELS;
const ProductKernels ASSAY_KERNELS = {ASSAY_NAME(ASSAY_KERNELS), bounded, hopper, sequential, pairwise, bf16_sequential};

}  // namespace assay
