// The inner loops of a matrix product against 16 columns at a time, compiled once per vector width.
// Every column is summed in ascending K by one lane, so the bits do not depend on the vector width.
#pragma once

#include <cstdint>

#include "harness/contract/summation.h"

namespace assay {

inline constexpr int kPanelColumns = 16;

/// A fault of the judge's own, for the test that sees it found: 1 in a build that nothing else is linked
/// with.
#ifdef ASSAY_PLANTED_KERNELS
inline constexpr std::int64_t kDroppedTerms = 1;
#else
inline constexpr std::int64_t kDroppedTerms = 0;
#endif

/// 16 columns of the right operand, K-major and padded with zeros to a multiple of 16 in K.
struct Panel {
  const float* values;  // [k_padded, 16]
  // [k_padded / 2, 16, 2], terms 2 i and 2 i + 1 side by side: unbiased; kZeroExponent for zeros. Null unless
  // predicting.
  const std::int16_t* exponents;
  std::int64_t k;  // not padded
};

/// Exponent of a zero operand: low enough never to raise an alignment, and to be told from real exponents.
inline constexpr std::int16_t kZeroExponent = -1000;

/// Up to 16 columns of a bf16 matrix: term i of column c is words[c * by_column + i * by_term].
struct Bf16Columns {
  const std::uint16_t* words;
  std::int64_t by_column;
  std::int64_t by_term;
  std::int64_t k;
  std::int64_t count;  // of columns; the panel's others are zeros
};

/// One row of the left operand for the bounded arithmetic, [k] each.
struct BoundedRow {
  const double* ref;
  const float* spread;   // per unit of |b|: what the term adds to the a-priori bound
  const float* squares;  // per unit of b^2: what the term adds to the variance
};

/// One row against the panel: sum ref_k b_k in float64; sum spread_k |b_k|, sum squares_k b_k^2 and the
/// running bound in float32.
struct BoundedSums {
  double ref[kPanelColumns];
  float spread[kPanelColumns];
  float squares[kPanelColumns];
  float running[kPanelColumns];  // units of 2^-23; 0 unless asked for
};

/// 16 columns of a right operand that has errors of its own, [k, 16] each.
struct IntervalPanel {
  const double* ref;
  const float* outer;    // |b| + half width
  const float* width;    // half width
  const float* squares;  // b^2
  const float* noise;    // b's variance in units of what q^2 counts for (product_bound.h)
  std::int64_t k;
};

/// One row of the left operand against such columns, [k] each.
struct IntervalRow {
  BoundedRow row;
  const float* magnitude;  // |a|
  const float* moment;     // a^2 + a's variance
};

/// Rows that the tensor core's kernel takes at most: while one waits for its last step, the others' are made.
inline constexpr int kTensorRows = 4;

/// One row of the left operand on a tensor core, [k_padded] each, and its running sums over the panel's
/// columns.
struct TensorRow {
  const float* values;
  const std::int16_t* exponents;
  float* sums;
  std::int32_t* flags;  // set where the alignment left the measured range
};

/// The order to walk K in, and what to add up on the way. Plain data: kernels share no inline function with
/// other files.
struct Walk {
  const SumStretch* stretches;
  std::int64_t count;
  StepRule rule;
  bool running;            // take the running bound
  float terms_per_spread;  // |a||b| = spread_k |b| * terms_per_spread where the left operand is exact
};

struct ProductKernels {
  const char* name;
  /// Writes a panel of `padded_k` terms, and where `exponents` is not null these and whether a column has
  /// values that are neither normal nor zero.
  void (*pack)(const Bf16Columns&, std::int64_t padded_k, float* values, std::int16_t* exponents,
               bool* outside);
  /// `count` (1 or 2) rows, so that a loaded column serves both.
  void (*bounded)(const Panel&, const Walk&, const BoundedRow* rows, int count, BoundedSums* out);
  /// One row against columns with errors: sum ref_k b_k in float64; sum spread_k outer_k + magnitude_k
  /// width_k; sum squares_k b_k^2 + moment_k noise_k. No running bound.
  void (*intervals)(const IntervalPanel&, const IntervalRow&, BoundedSums* out);
  /// One stretch [begin, end) on a tensor core that aligns 16 products and keeps 25 fractional bits, or 8 and
  /// 24: continues the sums of `count` (1 to kTensorRows) rows, each of which is one chain of dependent
  /// steps.
  void (*tensor_core)(const Panel&, StepRule rule, std::int64_t begin, std::int64_t end,
                      const TensorRow* rows, int count);
  /// The sums of `count` (1 to kTensorRows) rows over all of K against panels that lie side by side, rounded
  /// to bf16: `words` [count, panels, 16]. False where an alignment left the measured range.
  bool (*tensor_core_words)(const Panel* panels, std::int64_t panel_count, StepRule rule,
                            const TensorRow* rows, int count, std::uint16_t* words);
  /// fp32, round to nearest, K ascending.
  void (*sequential)(const Panel&, const float* a, float* sums);
  /// fp32, round to nearest; the tree splits at the largest power of two below n.
  void (*pairwise)(const Panel&, const float* a, float* sums);
  /// Running sum rounded to bf16 after every term: a planted fault, never a contract.
  void (*bf16_sequential)(const Panel&, const float* a, float* sums);
};

/// The widest set this CPU runs; `name` ("baseline", "avx2", "avx512") selects one for tests, or null if it
/// cannot run here.
const ProductKernels& product_kernels();
const ProductKernels* product_kernels(const char* name);

/// Those that products use: the widest set, unless a test has selected another (product.h).
const ProductKernels& kernels_in_use();

}  // namespace assay
