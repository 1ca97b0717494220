#include "reference_cpu/causes/linear_fit.h"

#include <algorithm>
#include <cmath>

namespace assay {

LinearFit fit_parts(const Eigen::MatrixXd& parts, const Eigen::VectorXd& error) {
  const Eigen::Index unknowns = parts.cols();
  Eigen::MatrixXd normal = parts.transpose() * parts;
  normal.diagonal().array() += 1e-12 * normal.trace() / static_cast<double>(unknowns) + 1e-300;
  const Eigen::LDLT<Eigen::MatrixXd> solver(normal);
  LinearFit fit{solver.solve(parts.transpose() * error), Eigen::VectorXd(unknowns)};
  const double variance = (error - parts * fit.share).squaredNorm() /
                          static_cast<double>(std::max<Eigen::Index>(1, error.size() - unknowns));
  const Eigen::MatrixXd inverse = solver.solve(Eigen::MatrixXd::Identity(unknowns, unknowns));
  for (Eigen::Index i = 0; i < unknowns; ++i)
    fit.deviation[i] = std::sqrt(std::max(0.0, variance * inverse(i, i)));
  return fit;
}

}  // namespace assay
