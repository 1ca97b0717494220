// Compiled three times, with ASSAY_KERNELS naming the set. Only raw pointers and vector types here: an inline function
// shared with other files could be emitted for a CPU that cannot run it.
#include "reference_cpu/product_kernels.h"

namespace assay {
namespace {

// Vectors of the machine's own width: wider ones are lowered element by element where they are compared.
#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr int kLanes = kBytes / 4;
constexpr int kWideLanes = kBytes / 8;  // float64 lanes
using Floats = float __attribute__((vector_size(kBytes)));
using Ints = std::int32_t __attribute__((vector_size(kBytes)));
using HalfFloats = float __attribute__((vector_size(kBytes / 2)));
using HalfInts = std::int32_t __attribute__((vector_size(kBytes / 2)));
using Doubles = double __attribute__((vector_size(kBytes)));
using Longs = std::int64_t __attribute__((vector_size(kBytes)));

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
void save(void* to, const V& value) {
  __builtin_memcpy(to, &value, sizeof(V));
}

// Block by block, first in float64, then in fp32: all sums at once would not fit the registers of narrow machines.
template <int kRows>
void bounded_rows(const Panel& panel, const BoundedRow* rows, BoundedSums* out) {
  constexpr int kParts = kPanelColumns / kWideLanes, kNarrowParts = kPanelColumns / kLanes;
  Doubles sum[kRows][kParts] = {};
  Floats spread[kRows][kNarrowParts] = {}, squares[kRows][kNarrowParts] = {};
  for (std::int64_t begin = 0; begin < panel.k; begin += kStep) {
    const std::int64_t end = begin + kStep < panel.k ? begin + kStep : panel.k;
    for (std::int64_t k = begin; k < end; ++k)
      for (int p = 0; p < kParts; ++p) {
        const Doubles b = __builtin_convertvector(load<HalfFloats>(panel.values + k * kPanelColumns + p * kWideLanes), Doubles);
        for (int r = 0; r < kRows; ++r) sum[r][p] += rows[r].ref[k] * b;
      }
    for (std::int64_t k = begin; k < end; ++k)
      for (int p = 0; p < kNarrowParts; ++p) {
        const auto b = load<Floats>(panel.values + k * kPanelColumns + p * kLanes);
        const auto magnitude = (Floats)((Ints)b & 0x7fffffff);
        for (int r = 0; r < kRows; ++r) {
          spread[r][p] += rows[r].spread[k] * magnitude;
          squares[r][p] += rows[r].squares[k] * (b * b);
        }
      }
  }
  for (int r = 0; r < kRows; ++r) {
    save(out[r].ref, sum[r]);
    save(out[r].spread, spread[r]);
    save(out[r].squares, squares[r]);
  }
}

void bounded(const Panel& panel, const BoundedRow* rows, int count, BoundedSums* out) {
  count == 2 ? bounded_rows<2>(panel, rows, out) : bounded_rows<1>(panel, rows, out);
}

/// Clears all but 24 significant bits of an exact integer and scales it by 2^(top - 25): toward zero to fp32.
HalfFloats truncated(HalfInts low, HalfInts high, HalfInts top) {
  Doubles total = __builtin_convertvector(low, Doubles) + __builtin_convertvector(high, Doubles);
  total = (Doubles)((Longs)total & ~((std::int64_t{1} << 29) - 1));
  const Longs exponent = __builtin_convertvector(top, Longs) + (1023 - kFractionBits);
  return __builtin_convertvector(total * (Doubles)(exponent << 52), HalfFloats);
}

// The exact products and the running sum are aligned to the largest exponent among them (a product's exponent is
// e_a + e_b, not normalised), each truncated after 25 fractional bits, added exactly, and the result truncated to fp32.
// An addend is below 2^27 in units of the last kept bit: eight of them fit an int32, two int32 sums are exact in float64.
void hopper_lanes(const float* values, const std::int32_t* exponents, const float* a, const std::int32_t* a_exponents,
                  std::int64_t begin, std::int64_t end, float* sums, std::int32_t* flags) {
  Floats sum = {};
  Ints outside = {};
  for (std::int64_t k0 = begin; k0 < end; k0 += kStep) {
    const Ints biased = ((Ints)sum >> 23) & 0xff;
    Ints top = biased == 0 ? Ints{} + kZeroExponent : biased - 127;  // the sum is never subnormal inside the measured range
#pragma GCC unroll 16
    for (int i = 0; i < kStep; ++i) {
      const Ints e = load<Ints>(exponents + (k0 + i) * kPanelColumns) + a_exponents[k0 + i];
      top = e > top ? e : top;
    }
    outside |= ((top < kLowestAlignment) & (top > kZeroExponent / 2)) | (top > kHighestAlignment);
    top = top < kLowestAlignment ? Ints{} + kLowestAlignment : top;
    const auto scale = (Floats)((kFractionBits + 127 - top) << 23);
    Ints low = __builtin_convertvector(sum * scale, Ints);
    Ints high = {};
#pragma GCC unroll 8
    for (int i = 0; i < kStep / 2; ++i) {
      const auto b = load<Floats>(values + (k0 + i) * kPanelColumns);
      low += __builtin_convertvector(b * a[k0 + i] * scale, Ints);
      const auto c = load<Floats>(values + (k0 + kStep / 2 + i) * kPanelColumns);
      high += __builtin_convertvector(c * a[k0 + kStep / 2 + i] * scale, Ints);
    }
    HalfInts part[6];
    __builtin_memcpy(part + 0, &low, kBytes);
    __builtin_memcpy(part + 2, &high, kBytes);
    __builtin_memcpy(part + 4, &top, kBytes);
    const HalfFloats halves[2] = {truncated(part[0], part[2], part[4]), truncated(part[1], part[3], part[5])};
    __builtin_memcpy(&sum, halves, kBytes);
  }
  save(sums, sum);
  save(flags, outside);
}

void hopper(const Panel& panel, const float* a, const std::int32_t* a_exponents, std::int64_t begin, std::int64_t end,
            float* sums, std::int32_t* flags) {
  for (int c = 0; c < kPanelColumns; c += kLanes)
    hopper_lanes(panel.values + c, panel.exponents + c, a, a_exponents, begin, end, sums + c, flags + c);
}

void sequential(const Panel& panel, const float* a, float* sums) {
  for (int c = 0; c < kPanelColumns; c += kLanes) {
    Floats sum = {};
    for (std::int64_t k = 0; k < panel.k; ++k) sum += load<Floats>(panel.values + k * kPanelColumns + c) * a[k];
    save(sums + c, sum);
  }
}

Floats pairwise_sum(const float* values, const float* a, std::int64_t begin, std::int64_t count) {
  if (count == 0) return Floats{};
  if (count == 1) return load<Floats>(values + begin * kPanelColumns) * a[begin];
  std::int64_t half = 1;
  while (half * 2 < count) half *= 2;
  return pairwise_sum(values, a, begin, half) + pairwise_sum(values, a, begin + half, count - half);
}

void pairwise(const Panel& panel, const float* a, float* sums) {
  for (int c = 0; c < kPanelColumns; c += kLanes) save(sums + c, pairwise_sum(panel.values + c, a, 0, panel.k));
}

void bf16_sequential(const Panel& panel, const float* a, float* sums) {
  for (int c = 0; c < kPanelColumns; c += kLanes) {
    Floats sum = {};
    for (std::int64_t k = 0; k < panel.k; ++k) {
      sum += load<Floats>(panel.values + k * kPanelColumns + c) * a[k];
      const auto bits = (Ints)sum;
      sum = (Floats)((bits + 0x7fff + ((bits >> 16) & 1)) & ~0xffff);
    }
    save(sums + c, sum);
  }
}

#define ASSAY_STRING(x) #x
#define ASSAY_NAME(x) ASSAY_STRING(x)

}  // namespace

extern const ProductKernels ASSAY_KERNELS;
const ProductKernels ASSAY_KERNELS = {ASSAY_NAME(ASSAY_KERNELS), bounded, hopper, sequential, pairwise, bf16_sequential};

}  // namespace assay
