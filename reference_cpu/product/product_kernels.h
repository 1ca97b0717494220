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
  const std::int32_t*
      exponents;   // [k_padded, 16]: unbiased; kZeroExponent for zeros. Null unless predicting.
  std::int64_t k;  // not padded
};

/// Exponent of a zero operand: low enough never to raise an alignment, and to be told from real exponents.
inline constexpr std::int32_t kZeroExponent = -1000;

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

/// One row of the left operand on a tensor core, [k] each, and its running sums over the panel's columns.
struct TensorRow {
  const float* values;
  const std::int32_t* exponents;
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
  /// `count` (1 or 2) rows, so that a loaded column serves both.
  void (*bounded)(const Panel&, const Walk&, const BoundedRow* rows, int count, BoundedSums* out);
  /// One row against columns with errors: sum ref_k b_k in float64; sum spread_k outer_k + magnitude_k
  /// width_k; sum squares_k b_k^2 + moment_k noise_k. No running bound.
  void (*intervals)(const IntervalPanel&, const IntervalRow&, BoundedSums* out);
  /// One stretch [begin, end) on a tensor core that aligns 16 products and keeps 25 fractional bits, or 8 and
  /// 24: continues the sums of `count` (1 or 2) rows, each of which is one chain of dependent steps.
  void (*tensor_core)(const Panel&, StepRule rule, std::int64_t begin, std::int64_t end,
                      const TensorRow* rows, int count);
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

}  // namespace assay
