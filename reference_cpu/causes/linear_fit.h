// Least squares with deviations: how much of each part an error is made of.
#pragma once

#include <Eigen/Dense>

namespace assay {

struct LinearFit {
  Eigen::VectorXd share;      // of each part
  Eigen::VectorXd deviation;  // standard deviation of it, from what is left unexplained
};

/// error = parts * share + noise; parts [elements, unknowns]. Over all parts at once: parts of one sign are
/// correlated.
LinearFit fit_parts(const Eigen::MatrixXd& parts, const Eigen::VectorXd& error);

}  // namespace assay
