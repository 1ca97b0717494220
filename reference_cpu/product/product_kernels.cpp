// Compiled three times, with ASSAY_KERNELS naming the set. Only raw pointers and vector types here: an inline
// function shared with other files could be emitted for a CPU that cannot run it.
#include "reference_cpu/product/product_kernels.h"

namespace assay {

void ASSAY_INTERVALS(const IntervalPanel& panel, const IntervalRow& row, BoundedSums* out);

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

constexpr std::int64_t kBlock = 16;  // terms between two looks at the sums
// Outside, scale factors leave the range of normal numbers: undetermined.
constexpr std::int32_t kLowestAlignment = -102;
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

Floats magnitude(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }
Floats largest(Floats a, Floats b) { return a > b ? a : b; }

constexpr int kParts = kPanelColumns / kWideLanes;
constexpr int kNarrowParts = kPanelColumns / kLanes;

/// One row's float64 sums as fp32 magnitudes.
struct Magnitudes {
  Floats part[kNarrowParts];
  explicit Magnitudes(const Doubles* sum) {
    HalfFloats halves[kParts];
    for (int p = 0; p < kParts; ++p) halves[p] = __builtin_convertvector(sum[p], HalfFloats);
    __builtin_memcpy(part, halves, sizeof part);
    for (auto& x : part) x = magnitude(x);
  }
  Magnitudes() : part{} {}
};

// Block by block, first in float64, then in fp32: all sums at once would not fit the registers of narrow
// machines. kProducts: products a step of the tensor core aligns; 1 = every addition rounds; 0 = no running
// bound; kTree: neither it nor the sum.
constexpr int kTree = -1;
template <int kRows, int kProducts>
void bounded_rows(const Panel& panel, const Walk& walk, const BoundedRow* rows, BoundedSums* out) {
  constexpr std::int64_t kStep = kProducts > 1 ? kProducts : kBlock;
  Doubles total[kRows][kParts] = {};
  Doubles sum[kRows][kParts] = {};
  Doubles prefixes[kRows][kParts] = {};
  Floats spread[kRows][kNarrowParts] = {};
  Floats squares[kRows][kNarrowParts] = {};
  Floats running[kRows][kNarrowParts] = {};
  Magnitudes before[kRows];
  for (std::int64_t s = 0; s < walk.count; ++s) {
    const SumStretch& stretch = walk.stretches[s];
    for (std::int64_t begin = stretch.begin; begin < stretch.end; begin += kStep) {
      const std::int64_t end = begin + kStep < stretch.end ? begin + kStep : stretch.end;
      for (std::int64_t k = begin; kProducts != kTree && k < end - kDroppedTerms; ++k)
        for (int p = 0; p < kParts; ++p) {
          const Doubles b = __builtin_convertvector(
              load<HalfFloats>(panel.values + k * kPanelColumns + p * kWideLanes), Doubles);
          for (int r = 0; r < kRows; ++r) {
            sum[r][p] += rows[r].ref[k] * b;
            if constexpr (kProducts == 1)
              prefixes[r][p] += (Doubles)((Longs)sum[r][p] & ~(std::int64_t{1} << 63));
          }
        }
      Floats top[kRows][kNarrowParts] = {};
      for (std::int64_t k = begin; k < end; ++k)
        for (int p = 0; p < kNarrowParts; ++p) {
          const auto b = load<Floats>(panel.values + k * kPanelColumns + p * kLanes);
          const auto size = magnitude(b);
          for (int r = 0; r < kRows; ++r) {
            const Floats term = rows[r].spread[k] * size;
            spread[r][p] += term;
            squares[r][p] += rows[r].squares[k] * (b * b);
            if constexpr (kProducts > 1) top[r][p] = largest(term, top[r][p]);
          }
        }
      if constexpr (kProducts > 1)
        for (int r = 0; r < kRows; ++r) {
          const Magnitudes after(sum[r]);
          for (int p = 0; p < kNarrowParts; ++p)
            running[r][p] +=
                after.part[p] + 4.0f * largest(before[r].part[p], top[r][p] * walk.terms_per_spread);
          before[r] = after;
        }
    }
    if (!stretch.closes) continue;
    for (int r = 0; r < kRows; ++r) {
      for (int p = 0; p < kParts; ++p) {
        total[r][p] += sum[r][p];
        sum[r][p] = Doubles{};
      }
      before[r] = {};
      if (kProducts <= 0 || walk.count == 1) continue;
      const Magnitudes after(total[r]);
      for (int p = 0; p < kNarrowParts; ++p) running[r][p] += 0.5f * after.part[p];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    save(out[r].ref, total[r]);
    save(out[r].spread, spread[r]);
    save(out[r].squares, squares[r]);
    if constexpr (kProducts == 1) {
      const Magnitudes rounded(prefixes[r]);
      for (int p = 0; p < kNarrowParts; ++p) running[r][p] = 0.5f * rounded.part[p];
    }
    save(out[r].running, running[r]);
  }
}

/// term(0) + .. + term(count - 1) as the tree that splits at the largest power of two below n: complete trees
/// of kLeaf terms, merged as a binary counter carries; what is left is of unequal sizes and merges last, the
/// smallest first. `add` is told how many terms it adds: a power of two up to kLeaf, or more.
constexpr int kLeaf = 8;
template <int kCount, class Term, class Add>
auto complete_tree(std::int64_t first, const Term& term, const Add& add) {
  if constexpr (kCount == 1) {
    return term(first);
  } else {
    const auto low = complete_tree<kCount / 2>(first, term, add);
    return add(low, complete_tree<kCount / 2>(first + kCount / 2, term, add), kCount);
  }
}

template <class Sum, class Term, class Add>
Sum tree_sum(std::int64_t count, const Term& term, const Add& add) {
  Sum carried[64];  // of 2^i leaves, where bit i of their number is set
  const std::int64_t leaves = count / kLeaf;
  for (std::int64_t leaf = 0; leaf < leaves; ++leaf) {
    Sum sum = complete_tree<kLeaf>(leaf * kLeaf, term, add);
    int level = 0;
    for (; (leaf >> level & 1) != 0; ++level) sum = add(carried[level], sum, kLeaf + 1);
    carried[level] = sum;
  }
  Sum right{};
  std::int64_t at = count;
  const auto put_before = [&](const Sum& left) { right = at == count ? left : add(left, right, kLeaf + 1); };
  if ((count & 1) != 0) put_before(complete_tree<1>(at - 1, term, add)), at -= 1;
  if ((count & 2) != 0) put_before(complete_tree<2>(at - 2, term, add)), at -= 2;
  if ((count & 4) != 0) put_before(complete_tree<4>(at - 4, term, add)), at -= 4;
  for (int level = 0; (leaves >> level) != 0; ++level)
    if ((leaves >> level & 1) != 0) put_before(carried[level]), at -= kLeaf << level;
  return right;
}

/// The sum and the running bound of a tree: half an ulp of every inner node.
template <int kRows>
void sum_as_tree(const Panel& panel, const BoundedRow* rows, BoundedSums* out) {
  struct Sums {
    Doubles row[kRows];
  };
  Doubles total[kRows][kParts];
  Doubles nodes[kRows][kParts];
  for (int p = 0; p < kParts; ++p) {
    Doubles by_size[kRows][3] = {};  // of pairs, of four terms, of more: one sum would wait for itself
    const auto term = [&](std::int64_t k) {
      const Doubles b = __builtin_convertvector(
          load<HalfFloats>(panel.values + k * kPanelColumns + p * kWideLanes), Doubles);
      Sums sums;
      for (int r = 0; r < kRows; ++r) sums.row[r] = rows[r].ref[k] * b;
      return sums;
    };
    const auto add = [&](const Sums& low, const Sums& high, int terms) {
      Sums sums;
      for (int r = 0; r < kRows; ++r) {
        sums.row[r] = low.row[r] + high.row[r];
        const int size = terms == 2 ? 0 : (terms == 4 ? 1 : 2);
        by_size[r][size] += (Doubles)((Longs)sums.row[r] & ~(std::int64_t{1} << 63));
      }
      return sums;
    };
    const Sums sums = tree_sum<Sums>(panel.k, term, add);
    for (int r = 0; r < kRows; ++r) {
      total[r][p] = sums.row[r];
      nodes[r][p] = by_size[r][0] + by_size[r][1] + by_size[r][2];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    Magnitudes rounded(nodes[r]);
    for (auto& x : rounded.part) x *= 0.5f;
    save(out[r].ref, total[r]);
    save(out[r].running, rounded.part);
  }
}

template <int kRows>
void bounded_by_rule(const Panel& panel, const Walk& walk, const BoundedRow* rows, BoundedSums* out) {
  if (!walk.running) return bounded_rows<kRows, 0>(panel, walk, rows, out);
  switch (walk.rule) {
    case StepRule::Truncate16: return bounded_rows<kRows, 16>(panel, walk, rows, out);
    case StepRule::Truncate8: return bounded_rows<kRows, 8>(panel, walk, rows, out);
    case StepRule::RoundEach: return bounded_rows<kRows, 1>(panel, walk, rows, out);
    case StepRule::RoundTree:
      bounded_rows<kRows, kTree>(panel, walk, rows, out);
      return sum_as_tree<kRows>(panel, rows, out);
  }
}

void bounded(const Panel& panel, const Walk& walk, const BoundedRow* rows, int count, BoundedSums* out) {
  count == 2 ? bounded_by_rule<2>(panel, walk, rows, out) : bounded_by_rule<1>(panel, walk, rows, out);
}

/// Clears all but 24 significant bits of an exact integer and scales it by 2^(top - fraction_bits): toward
/// zero to fp32.
HalfFloats truncated(HalfInts low, HalfInts high, HalfInts top, std::int32_t fraction_bits) {
  Doubles total = __builtin_convertvector(low, Doubles) + __builtin_convertvector(high, Doubles);
  total = (Doubles)((Longs)total & ~((std::int64_t{1} << 29) - 1));
  const Longs exponent = __builtin_convertvector(top, Longs) + (1023 - fraction_bits);
  return __builtin_convertvector(total * (Doubles)(exponent << 52), HalfFloats);
}

// The exact products and the running sum are aligned to the largest exponent among them (a product's exponent
// is e_a + e_b, not normalised), each truncated after kFractionBits, added exactly, and the result truncated
// to fp32. An addend is below 2^27 in units of the last kept bit: eight of them fit an int32, two int32 sums
// are exact in float64.
template <int kProducts, std::int32_t kFractionBits>
Floats tensor_core_step(Floats sum, const float* values, const std::int32_t* exponents, const float* a,
                        const std::int32_t* a_exponents, Ints& outside) {
  const Ints biased = ((Ints)sum >> 23) & 0xff;
  // The sum is never subnormal inside the measured range.
  Ints top = biased == 0 ? Ints{} + kZeroExponent : biased - 127;
#pragma GCC unroll 16
  for (int i = 0; i < kProducts; ++i) {
    const Ints e = load<Ints>(exponents + i * kPanelColumns) + a_exponents[i];
    top = e > top ? e : top;
  }
  outside |= ((top < kLowestAlignment) & (top > kZeroExponent / 2)) | (top > kHighestAlignment);
  top = top < kLowestAlignment ? Ints{} + kLowestAlignment : top;
  const auto scale = (Floats)((kFractionBits + 127 - top) << 23);
  Ints low = __builtin_convertvector(sum * scale, Ints);
  Ints high = {};
#pragma GCC unroll 8
  for (int i = 0; i < kProducts / 2; ++i) {
    const auto b = load<Floats>(values + i * kPanelColumns);
    low += __builtin_convertvector(b * a[i] * scale, Ints);
    const auto c = load<Floats>(values + (kProducts / 2 + i) * kPanelColumns);
    high += __builtin_convertvector(c * a[kProducts / 2 + i] * scale, Ints);
  }
  const Ints whole[3] = {low, high, top};
  HalfInts part[6];
  __builtin_memcpy(part, whole, sizeof part);
  const HalfFloats halves[2] = {truncated(part[0], part[2], part[4], kFractionBits),
                                truncated(part[1], part[3], part[5], kFractionBits)};
  __builtin_memcpy(&sum, halves, kBytes);
  return sum;
}

template <int kProducts, std::int32_t kFractionBits>
void tensor_core_lanes(const Panel& panel, int column, const float* a, const std::int32_t* a_exponents,
                       std::int64_t begin, std::int64_t end, float* sums, std::int32_t* flags) {
  const float* values = panel.values + column;
  const std::int32_t* exponents = panel.exponents + column;
  Floats sum = load<Floats>(sums + column);
  Ints outside = load<Ints>(flags + column);
  std::int64_t k = begin;
  for (; k + kProducts <= end; k += kProducts)
    sum = tensor_core_step<kProducts, kFractionBits>(
        sum, values + k * kPanelColumns, exponents + k * kPanelColumns, a + k, a_exponents + k, outside);
  if (k < end) {
    // A stretch that ends inside a step: what follows counts as zeros.
    float tail[kProducts * kPanelColumns] = {};
    float tail_a[kProducts];
    std::int32_t tail_exponents[kProducts * kPanelColumns];
    std::int32_t tail_a_exponents[kProducts];
    for (int i = 0; i < kProducts; ++i) {
      const bool inside = k + i < end;
      tail_a_exponents[i] = inside ? a_exponents[k + i] : kZeroExponent;
      tail_a[i] = inside ? a[k + i] : 0.0f;
      for (int c = 0; c < kLanes; ++c) {
        if (inside) tail[i * kPanelColumns + c] = values[(k + i) * kPanelColumns + c];
        tail_exponents[i * kPanelColumns + c] =
            inside ? exponents[(k + i) * kPanelColumns + c] : kZeroExponent;
      }
    }
    sum = tensor_core_step<kProducts, kFractionBits>(sum, tail, tail_exponents, tail_a, tail_a_exponents,
                                                     outside);
  }
  save(sums + column, sum);
  save(flags + column, outside);
}

void tensor_core(const Panel& panel, StepRule rule, const float* a, const std::int32_t* a_exponents,
                 std::int64_t begin, std::int64_t end, float* sums, std::int32_t* flags) {
  const auto lanes = rule == StepRule::Truncate8 ? tensor_core_lanes<8, 24> : tensor_core_lanes<16, 25>;
  for (int c = 0; c < kPanelColumns; c += kLanes) lanes(panel, c, a, a_exponents, begin, end, sums, flags);
}

void sequential(const Panel& panel, const float* a, float* sums) {
  for (int c = 0; c < kPanelColumns; c += kLanes) {
    const float* values = panel.values + c;
    Floats sum = {};
    for (std::int64_t k = 0; k < panel.k; ++k) sum += load<Floats>(values + k * kPanelColumns) * a[k];
    save(sums + c, sum);
  }
}

void pairwise(const Panel& panel, const float* a, float* sums) {
  for (int c = 0; c < kPanelColumns; c += kLanes) {
    const float* values = panel.values + c;
    const auto term = [&](std::int64_t k) { return load<Floats>(values + k * kPanelColumns) * a[k]; };
    save(sums + c, tree_sum<Floats>(panel.k, term, [](Floats low, Floats high, int) { return low + high; }));
  }
}

void bf16_sequential(const Panel& panel, const float* a, float* sums) {
  for (int c = 0; c < kPanelColumns; c += kLanes) {
    Floats sum = {};
    for (std::int64_t k = 0; k < panel.k; ++k) {
      const auto bits = (Ints)(sum + load<Floats>(panel.values + k * kPanelColumns + c) * a[k]);
      sum = (Floats)((bits + 0x7fff + ((bits >> 16) & 1)) & ~0xffff);
    }
    save(sums + c, sum);
  }
}

#define ASSAY_STRING(x) #x
#define ASSAY_NAME(x) ASSAY_STRING(x)

}  // namespace

extern const ProductKernels ASSAY_KERNELS;
const ProductKernels ASSAY_KERNELS = {
    ASSAY_NAME(ASSAY_KERNELS), bounded, ASSAY_INTERVALS, tensor_core, sequential, pairwise, bf16_sequential};

}  // namespace assay
