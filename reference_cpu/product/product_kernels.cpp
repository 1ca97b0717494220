// Compiled three times, with ASSAY_KERNELS naming the set. Only raw pointers and vector types here, and
// what kernel_vectors.h has: an inline function shared with other files could be emitted for a CPU that
// cannot run it.
#include "reference_cpu/product/product_kernels.h"

#include "reference_cpu/product/kernel_vectors.h"

namespace assay {

void ASSAY_INTERVALS(const IntervalPanel& panel, const IntervalRow& row, BoundedSums* out);
void ASSAY_PACK(const Bf16Columns& from, std::int64_t padded_k, float* values, std::int16_t* exponents,
                bool* outside);
void ASSAY_TENSOR_CORE(const Panel& panel, StepRule rule, std::int64_t begin, std::int64_t end,
                       const TensorRow* rows, int count);
bool ASSAY_TENSOR_CORE_WORDS(const Panel* panels, std::int64_t panel_count, StepRule rule,
                             const TensorRow* rows, int count, std::uint16_t* words);

namespace {

constexpr std::int64_t kBlock = 16;  // terms between two looks at the sums

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
    ASSAY_NAME(ASSAY_KERNELS), ASSAY_PACK, bounded,  ASSAY_INTERVALS, ASSAY_TENSOR_CORE,
    ASSAY_TENSOR_CORE_WORDS,   sequential, pairwise, bf16_sequential};

}  // namespace assay
