// One step of the layer, plainly, from the values that the judge's own step reads: what the judge's reference
// values are held against.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "harness/contract/layer.h"
#include "harness/contract/reference.h"
#include "reference_cpu/eigen/plain_matrix.h"

namespace assay::plain {

/// What a step reads. `read` gives rows of an upstream field, as readers see it; inputs and weights are the
/// problem's.
struct StepInput {
  const Problem* problem = nullptr;
  const PrecisionContract* contract = nullptr;
  const Routing* routing = nullptr;
  std::function<Matrix(Field field, const IndexVector& rows)> read;
};

/// Rows of a field before they are stored.
struct StepRows {
  Matrix values;
  Eigen::VectorXd row_slack;
  RowVector column_slack;
  Matrix slack;

  /// By how much two sums in float64 may differ there whatever their order: twice gamma_n sum |a||b| with
  /// u = 2^-53; of products |b| is the column's largest weight. Infinite where float64 cannot tell on which
  /// side of a tie a value lies that is rounded on the way: nothing is confirmed there.
  double slack_at(std::int64_t row, std::int64_t column) const {
    return slack.size() > 0 ? slack(row, column) : row_slack[row] * column_slack[column];
  }
};

/// `rows`: of the field, ascending, all experts' matrices counted through; of one expert for a product.
StepRows plain_step(Field made, const StepInput& input, const IndexVector& rows);

}  // namespace assay::plain
