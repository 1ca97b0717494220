// Matrices of the plain layer: doubles, the contract's one rounding, and products with an expert's weights.
#pragma once

#include <cstdint>
#include <exception>
#include <span>

#include <Eigen/Core>

#include "harness/contract/bf16.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/tensor.h"

namespace assay::plain {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using RowVector = Eigen::RowVectorXd;
using IndexMatrix = Eigen::Matrix<std::int32_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using IndexVector = Eigen::Matrix<std::int32_t, Eigen::Dynamic, 1>;

/// What a stage hands to the next: rounded to bf16 once, or as it is.
template <class Expression>
Matrix rounded(const Eigen::DenseBase<Expression>& values, Store store) {
  if (store == Store::Unrounded) return values.derived();
  return values.unaryExpr([](double x) -> double { return to_float(round_to_bf16(x)); });
}

/// A bf16, float32 or float64 tensor [rows, columns] as doubles, exactly.
Matrix widened(const Tensor& tensor);

/// Some rows of it; of a tensor of rank 3 those of all its matrices counted through.
Matrix widened(const Tensor& tensor, const IndexVector& rows);

/// One fp32 value each.
template <class Expression>
Matrix as_fp32(const Eigen::DenseBase<Expression>& values) {
  return values.unaryExpr([](double x) -> double { return static_cast<float>(x); });
}

/// x Wᵀ [m, n], of x [m, k] and W [n, k].
Matrix times_transposed(const Matrix& x, std::span<const Bf16> w);

/// x W [m, k], of x [m, n] and W [n, k].
Matrix times(const Matrix& x, std::span<const Bf16> w, std::int64_t k);

/// The largest magnitude that each result meets among the weights [n, k], or [k, n] where they are read
/// transposed. As bits: bf16 magnitudes are ordered as their bits are, NaN above all.
RowVector largest_magnitudes(std::span<const Bf16> w, std::int64_t k, bool transposed);

/// Calls body(expert) for every expert, on several threads; what it throws is thrown again.
template <class Body>
void for_each_expert(std::int64_t experts, Body body) {
  std::exception_ptr error;
#pragma omp parallel for schedule(static)
  for (std::int64_t e = 0; e < experts; ++e) {
    try {
      body(e);
    } catch (...) {
#pragma omp critical
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace assay::plain
