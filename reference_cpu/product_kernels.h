// The inner loops of a matrix product against 16 columns at a time, compiled once per vector width.
// Every column is summed in ascending K by one lane, so the bits do not depend on the vector width.
#pragma once

#include <cstdint>

namespace assay {

inline constexpr int kPanelColumns = 16;

/// 16 columns of the right operand, K-major and padded with zeros to a multiple of 16 in K.
struct Panel {
  const float* values;            // [k_padded, 16]
  const std::int32_t* exponents;  // [k_padded, 16]: unbiased; kZeroExponent for zeros. Null unless predicting.
  std::int64_t k;                 // not padded
};

/// Exponent of a zero operand: low enough never to raise an alignment, and to be told from real exponents.
inline constexpr std::int32_t kZeroExponent = -1000;

struct ProductKernels {
  const char* name;
  /// ref[16] = sum a_k b_k in float64; spread[16] = sum g_k |b_k| in float32, for `rows` (1 or 2) rows.
  void (*bounded)(const Panel&, const double* const* a, const float* const* g, int rows, double* ref, float* spread);
  /// The Hopper tensor core on K in [begin, end), starting from zero; flags[c] != 0 where the alignment left the measured range.
  void (*hopper)(const Panel&, const float* a, const std::int32_t* a_exponents, std::int64_t begin, std::int64_t end,
                 float* sums, std::int32_t* flags);
  /// fp32, round to nearest, K ascending.
  void (*sequential)(const Panel&, const float* a, float* sums);
  /// fp32, round to nearest; the tree splits at the largest power of two below n.
  void (*pairwise)(const Panel&, const float* a, float* sums);
  /// Running sum rounded to bf16 after every term: a planted fault, never a contract.
  void (*bf16_sequential)(const Panel&, const float* a, float* sums);
};

/// The widest set this CPU runs; `name` ("baseline", "avx2", "avx512") selects one for tests, or null if it cannot run here.
const ProductKernels& product_kernels();
const ProductKernels* product_kernels(const char* name);

}  // namespace assay
