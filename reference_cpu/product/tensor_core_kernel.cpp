// One stretch of a sum on a tensor core. Compiled three times like product_kernels.cpp, with
// ASSAY_TENSOR_CORE naming the function.
#include <utility>

#include "reference_cpu/product/kernel_vectors.h"
#include "reference_cpu/product/product_kernels.h"

namespace assay {
namespace {

// Outside, scale factors leave the range of normal numbers: undetermined.
constexpr std::int32_t kLowestAlignment = -102;
constexpr std::int32_t kHighestAlignment = 126;

/// Clears all but 24 significant bits of an exact integer and scales it by 2^(top - fraction_bits): toward
/// zero to fp32.
HalfFloats truncated(HalfInts low, HalfInts high, HalfInts top, std::int32_t fraction_bits) {
  Doubles total = __builtin_convertvector(low, Doubles) + __builtin_convertvector(high, Doubles);
  total = (Doubles)((Longs)total & ~((std::int64_t{1} << 29) - 1));
  const Longs exponent = __builtin_convertvector(top, Longs) + (1023 - fraction_bits);
  return __builtin_convertvector(total * (Doubles)(exponent << 52), HalfFloats);
}

/// Through memory a vector of two halves would wait for both stores.
template <std::size_t... kLane>
Floats joined(HalfFloats first, HalfFloats second, std::index_sequence<kLane...>) {
  return __builtin_shufflevector(first, second, kLane...);
}

/// f(0) .. f(count - 1); unrolled where count is known to be kMost.
template <int kMost, class Function>
[[gnu::always_inline]] inline void repeat(int count, const Function& f) {
  if (count == kMost) {
#pragma GCC unroll 16
    for (int i = 0; i < kMost; ++i) f(i);
  } else {
    for (int i = 0; i < count; ++i) f(i);
  }
}

/// Some lanes of a panel's columns, and the sums of kRows rows there: one row's steps wait for each other.
template <int kRows>
struct TensorCore {
  const float* values;
  const std::int32_t* exponents;
  const TensorRow* rows;
  Floats sum[kRows];
  Ints outside[kRows];

  // The exact products and the running sum are aligned to the largest exponent among them (a product's
  // exponent is e_a + e_b, not normalised), each truncated after kFractionBits, added exactly, and the result
  // truncated to fp32. An addend is below 2^27 in units of the last kept bit: eight of them fit an int32, two
  // int32 sums are exact in float64. `count`: kProducts, or fewer at the end of a stretch.
  template <int kProducts, std::int32_t kFractionBits>
  [[gnu::always_inline]] void add(std::int64_t k, int count) {
    constexpr int kHalf = kProducts / 2;
    Ints top[kRows];
    Floats scale[kRows];
    Ints low[kRows];
    Ints high[kRows] = {};
    for (int r = 0; r < kRows; ++r) {
      const Ints biased = ((Ints)sum[r] >> 23) & 0xff;
      // The sum is never subnormal inside the measured range.
      top[r] = biased == 0 ? Ints{} + kZeroExponent : biased - 127;
    }
    repeat<kProducts>(count, [&](int i) {
      const auto b = load<Ints>(exponents + (k + i) * kPanelColumns);
      for (int r = 0; r < kRows; ++r) {
        const Ints e = b + rows[r].exponents[k + i];
        top[r] = e > top[r] ? e : top[r];
      }
    });
    for (int r = 0; r < kRows; ++r) {
      outside[r] |=
          ((top[r] < kLowestAlignment) & (top[r] > kZeroExponent / 2)) | (top[r] > kHighestAlignment);
      top[r] = top[r] < kLowestAlignment ? Ints{} + kLowestAlignment : top[r];
      scale[r] = (Floats)((kFractionBits + 127 - top[r]) << 23);
      low[r] = __builtin_convertvector(sum[r] * scale[r], Ints);
    }
    const auto add_product = [&](Ints* part, int i) {
      const auto b = load<Floats>(values + (k + i) * kPanelColumns);
      for (int r = 0; r < kRows; ++r)
        part[r] += __builtin_convertvector(b * rows[r].values[k + i] * scale[r], Ints);
    };
    repeat<kHalf>(count < kHalf ? count : kHalf, [&](int i) { add_product(low, i); });
    repeat<kHalf>(count - kHalf, [&](int i) { add_product(high, kHalf + i); });
    for (int r = 0; r < kRows; ++r) {
      const Ints whole[3] = {low[r], high[r], top[r]};
      HalfInts part[6];
      __builtin_memcpy(part, whole, sizeof part);
      sum[r] =
          joined(truncated(part[0], part[2], part[4], kFractionBits),
                 truncated(part[1], part[3], part[5], kFractionBits), std::make_index_sequence<kLanes>());
    }
  }
};

template <int kRows, int kProducts, std::int32_t kFractionBits>
void tensor_core_lanes(const Panel& panel, int column, std::int64_t begin, std::int64_t end,
                       const TensorRow* rows) {
  TensorCore<kRows> core{panel.values + column, panel.exponents + column, rows, {}, {}};
  for (int r = 0; r < kRows; ++r) {
    core.sum[r] = load<Floats>(rows[r].sums + column);
    core.outside[r] = load<Ints>(rows[r].flags + column);
  }
  std::int64_t k = begin;
  for (; k + kProducts <= end; k += kProducts) core.template add<kProducts, kFractionBits>(k, kProducts);
  if (k < end) core.template add<kProducts, kFractionBits>(k, static_cast<int>(end - k));
  for (int r = 0; r < kRows; ++r) {
    save(rows[r].sums + column, core.sum[r]);
    save(rows[r].flags + column, core.outside[r]);
  }
}

template <int kRows>
void tensor_core_rows(const Panel& panel, StepRule rule, std::int64_t begin, std::int64_t end,
                      const TensorRow* rows) {
  const auto lanes =
      rule == StepRule::Truncate8 ? tensor_core_lanes<kRows, 8, 24> : tensor_core_lanes<kRows, 16, 25>;
  for (int c = 0; c < kPanelColumns; c += kLanes) lanes(panel, c, begin, end, rows);
}

}  // namespace

void ASSAY_TENSOR_CORE(const Panel& panel, StepRule rule, std::int64_t begin, std::int64_t end,
                       const TensorRow* rows, int count);
void ASSAY_TENSOR_CORE(const Panel& panel, StepRule rule, std::int64_t begin, std::int64_t end,
                       const TensorRow* rows, int count) {
  const auto sum = count == 2 ? tensor_core_rows<2> : tensor_core_rows<1>;
  sum(panel, rule, begin, end, rows);
}

}  // namespace assay
