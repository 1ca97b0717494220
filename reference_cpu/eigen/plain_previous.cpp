#include <cmath>
#include <limits>

#include "reference_cpu/eigen/plain_layer.h"

namespace assay::plain {

Matrix summed_gradient(Field field, const Problem& problem, const PrecisionContract& contract,
                       const IndexVector& rows, const Matrix& own) {
  if (!problem.previous.has(field))
    return contract.weight_gradients == Store::Unrounded ? rounded(own, contract.weight_products) : own;
  const Matrix sum = rounded(own, contract.weight_products) + widened(problem.previous.at(field), rows);
  return contract.unit_roundoff < kFp32UnitRoundoff ? sum : as_fp32(sum);
}

Matrix kept_gradient(Field field, const Problem& problem, const PrecisionContract& contract,
                     const IndexVector& rows, const Matrix& own) {
  return rounded(summed_gradient(field, problem, contract, rows, own), contract.weight_gradients);
}

Matrix summed_slack(Field field, const Problem& problem, const PrecisionContract& contract,
                    const IndexVector& rows, const Matrix& own, Matrix slack) {
  constexpr double kUnitRoundoff = 0x1p-53;
  constexpr double kUndecided = std::numeric_limits<double>::infinity();
  const Matrix before = problem.previous.has(field) ? widened(problem.previous.at(field), rows)
                                                    : Matrix(Matrix::Zero(own.rows(), own.cols()));
  const auto same_bf16 = [](double low, double high) {
    return round_to_bf16(low).bits == round_to_bf16(high).bits;
  };
  const auto same_fp32 = [](double low, double high) {
    return static_cast<float>(low) == static_cast<float>(high);
  };
  for (std::int64_t r = 0; r < own.rows(); ++r)
    for (std::int64_t c = 0; c < own.cols(); ++c) {
      double& x = slack(r, c);
      const double sum = own(r, c) + before(r, c);
      const double of_sum = x + kUnitRoundoff * std::fabs(sum);
      if (!std::isfinite(x))
        x = kUndecided;
      else if (contract.weight_products == Store::Bf16)
        x = same_bf16(own(r, c) - x, own(r, c) + x) ? 0.0 : kUndecided;
      else if (contract.unit_roundoff < kFp32UnitRoundoff)
        x = of_sum + 16.0 * kUnitRoundoff * std::fabs(sum);
      else
        x = same_fp32(sum - of_sum, sum + of_sum) ? 0.0 : kUndecided;
    }
  return slack;
}

}  // namespace assay::plain
