// Sums on a tensor core. Compiled three times like product_kernels.cpp, with ASSAY_TENSOR_CORE and
// ASSAY_TENSOR_CORE_WORDS naming the functions.
#include <utility>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

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

/// low + high, exactly, with all but 24 significant bits cleared, times 2^(top - fraction_bits).
Floats truncated(Ints low, Ints high, Ints top, std::int32_t fraction_bits) {
  const Ints whole[3] = {low, high, top};
  HalfInts part[6];
  __builtin_memcpy(part, whole, sizeof part);
  return joined(truncated(part[0], part[2], part[4], fraction_bits),
                truncated(part[1], part[3], part[5], fraction_bits), std::make_index_sequence<kLanes>());
}

#if defined(__AVX512F__)
/// The same where the sum fits an int32, which AVX-512 converts toward zero; nearly every sum does.
[[gnu::always_inline]] inline Floats truncated_int32(Ints total, Ints top, std::int32_t fraction_bits) {
  constexpr int kTowardZero = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
  // In two steps, for 2^(top - fraction_bits) may be too small for a float.
  constexpr std::int32_t kFirst = 24;
  const auto scaled =
      (Floats)_mm512_maskz_cvt_roundepi32_ps(0xffff, (__m512i)total, kTowardZero) * (1.0f / (1 << kFirst));
  return scaled * (Floats)((top + (kFirst - fraction_bits + 127)) << 23);
}

bool any_negative(Ints x) { return _mm512_movepi32_mask((__m512i)x) != 0; }
#endif

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
  const std::int16_t* exponents;
  const TensorRow* rows;
  Floats sum[kRows];
  Ints outside[kRows];

  /// Takes the exponents of the products of terms 2 pair and 2 pair + 1 into the largest of each lane's two
  /// halves; one that is before term `begin`, or not before `end`, is left out.
  [[gnu::always_inline]] void take_exponents(std::int64_t pair, std::int64_t begin, std::int64_t end,
                                             Shorts* largest) const {
    const auto b = load<Shorts>(exponents + pair * (2 * kPanelColumns));
    for (int r = 0; r < kRows; ++r) {
      std::int16_t of_row[2];
      __builtin_memcpy(of_row, rows[r].exponents + 2 * pair, sizeof of_row);
      if (2 * pair < begin) of_row[0] = kZeroExponent;
      if (2 * pair + 1 >= end) of_row[1] = kZeroExponent;
      std::int32_t both;
      __builtin_memcpy(&both, of_row, sizeof both);
      const Shorts e = b + (Shorts)(Ints{} + both);
      largest[r] = e > largest[r] ? e : largest[r];
    }
  }

  // The exact products and the running sum are aligned to the largest exponent among them (a product's
  // exponent is e_a + e_b, not normalised), each truncated after kFractionBits, added exactly, and the result
  // truncated to fp32. An addend is below 2^27 in units of the last kept bit: eight of them fit an int32, two
  // int32 sums are exact in float64. `count`: kProducts, or fewer at the end of a stretch. `whole`: it is
  // kProducts, and k is even.
  template <int kProducts, std::int32_t kFractionBits>
  [[gnu::always_inline]] void add(std::int64_t k, int count, bool whole) {
    constexpr int kHalf = kProducts / 2;
    Shorts largest[kRows];
    Ints top[kRows];
    Floats scale[kRows];
    Ints low[kRows];
    Ints high[kRows] = {};
    for (auto& x : largest) x = Shorts{} + kZeroExponent;
    if (whole)
      repeat<kHalf>(kHalf, [&](int i) { take_exponents(k / 2 + i, k, k + kProducts, largest); });
    else
      for (std::int64_t pair = k / 2; 2 * pair < k + count; ++pair)
        take_exponents(pair, k, k + count, largest);
    for (int r = 0; r < kRows; ++r) {
      const Ints biased = ((Ints)sum[r] >> 23) & 0xff;
      // The sum is never subnormal inside the measured range.
      top[r] = biased == 0 ? Ints{} + kZeroExponent : biased - 127;
      const Ints halves[2] = {((Ints)largest[r] << 16) >> 16, (Ints)largest[r] >> 16};
      for (const Ints& e : halves) top[r] = e > top[r] ? e : top[r];
      outside[r] |=
          ((top[r] < kLowestAlignment) & (top[r] > kZeroExponent / 2)) | (top[r] > kHighestAlignment);
      top[r] = top[r] < kLowestAlignment ? Ints{} + kLowestAlignment : top[r];
      scale[r] = (Floats)((kFractionBits + 127 - top[r]) << 23);
      low[r] = __builtin_convertvector(sum[r] * scale[r], Ints);
    }
    const auto add_product = [&](Ints* part, int i) {
      const auto b = load<Floats>(values + (k + i) * kPanelColumns);
      for (int r = 0; r < kRows; ++r) {
        const auto aligned = __builtin_convertvector(b * rows[r].values[k + i] * scale[r], Ints);
        // What does not fit is outside of what was measured, and may wrap: its sum is not used.
        part[r] = (Ints)((UnsignedInts)part[r] + (UnsignedInts)aligned);
      }
    };
    repeat<kHalf>(count < kHalf ? count : kHalf, [&](int i) { add_product(low, i); });
    repeat<kHalf>(count - kHalf, [&](int i) { add_product(high, kHalf + i); });
#if defined(__AVX512F__)
    Ints beyond = {};  // negative where low + high overflows
    for (int r = 0; r < kRows; ++r) {
      const auto total = (Ints)((UnsignedInts)low[r] + (UnsignedInts)high[r]);
      beyond |= (low[r] ^ total) & (high[r] ^ total);
      sum[r] = truncated_int32(total, top[r], kFractionBits);
    }
    if (!any_negative(beyond)) return;
#endif
    for (int r = 0; r < kRows; ++r) sum[r] = truncated(low[r], high[r], top[r], kFractionBits);
  }
};

template <int kProducts, std::int32_t kFractionBits, int kRows>
[[gnu::always_inline]] inline void add_stretch(TensorCore<kRows>& core, std::int64_t begin,
                                               std::int64_t end) {
  std::int64_t k = begin;
  if (begin % 2 == 0)
    for (; k + kProducts <= end; k += kProducts)
      core.template add<kProducts, kFractionBits>(k, kProducts, true);
  for (; k < end; k += kProducts)
    core.template add<kProducts, kFractionBits>(
        k, static_cast<int>(end - k < kProducts ? end - k : kProducts), false);
}

template <int kRows, int kProducts, std::int32_t kFractionBits>
void tensor_core_lanes(const Panel& panel, int column, std::int64_t begin, std::int64_t end,
                       const TensorRow* rows) {
  TensorCore<kRows> core{panel.values + column, panel.exponents + 2 * column, rows, {}, {}};
  for (int r = 0; r < kRows; ++r) {
    core.sum[r] = load<Floats>(rows[r].sums + column);
    core.outside[r] = load<Ints>(rows[r].flags + column);
  }
  add_stretch<kProducts, kFractionBits>(core, begin, end);
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

/// To nearest even. No sum is a NaN.
HalfShorts rounded_to_bf16(Floats sum) {
  const auto bits = (UnsignedInts)sum;
  return __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, HalfShorts);
}

template <int kRows, int kProducts, std::int32_t kFractionBits>
bool words_of_rows(const Panel* panels, std::int64_t count, const TensorRow* rows, std::uint16_t* words) {
  Ints outside = {};
  for (std::int64_t p = 0; p < count; ++p)
    for (int c = 0; c < kPanelColumns; c += kLanes) {
      TensorCore<kRows> core{panels[p].values + c, panels[p].exponents + 2 * c, rows, {}, {}};
      add_stretch<kProducts, kFractionBits>(core, 0, panels[p].k);
      for (int r = 0; r < kRows; ++r) {
        outside |= core.outside[r];
        save(words + (r * count + p) * kPanelColumns + c, rounded_to_bf16(core.sum[r]));
      }
    }
  std::int32_t lanes[kLanes];
  save(lanes, outside);
  std::int32_t any = 0;
  for (const auto lane : lanes) any |= lane;
  return any == 0;
}

template <int kRows>
bool words_by_rule(const Panel* panels, std::int64_t count, StepRule rule, const TensorRow* rows,
                   std::uint16_t* words) {
  const auto sum = rule == StepRule::Truncate8 ? words_of_rows<kRows, 8, 24> : words_of_rows<kRows, 16, 25>;
  return sum(panels, count, rows, words);
}

}  // namespace

void ASSAY_TENSOR_CORE(const Panel& panel, StepRule rule, std::int64_t begin, std::int64_t end,
                       const TensorRow* rows, int count);
void ASSAY_TENSOR_CORE(const Panel& panel, StepRule rule, std::int64_t begin, std::int64_t end,
                       const TensorRow* rows, int count) {
  constexpr decltype(&tensor_core_rows<1>) kSums[kTensorRows] = {tensor_core_rows<1>, tensor_core_rows<2>,
                                                                 tensor_core_rows<3>, tensor_core_rows<4>};
  kSums[count - 1](panel, rule, begin, end, rows);
}

bool ASSAY_TENSOR_CORE_WORDS(const Panel* panels, std::int64_t panel_count, StepRule rule,
                             const TensorRow* rows, int count, std::uint16_t* words);
bool ASSAY_TENSOR_CORE_WORDS(const Panel* panels, std::int64_t panel_count, StepRule rule,
                             const TensorRow* rows, int count, std::uint16_t* words) {
  constexpr decltype(&words_by_rule<1>) kSums[kTensorRows] = {words_by_rule<1>, words_by_rule<2>,
                                                              words_by_rule<3>, words_by_rule<4>};
  return kSums[count - 1](panels, panel_count, rule, rows, words);
}

}  // namespace assay
