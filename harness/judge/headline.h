// The report's first sentence: the verdict, and which stage is the culprit.
#pragma once

#include "harness/contract/report.h"

namespace assay {

/// The first field whose own computation is wrong: shape, dtype, range, isolated interval, or bits that
/// differ from a binding prediction given its own upstream. Failures outrank suspicions.
std::optional<Field> first_own_error(const CaseResult& result);

/// Where the first error of its own lies: the field, a field before it that was not written and whose cause
/// explains every bit, or the span "between first_gemm and second_gemm"; empty without one.
std::string own_error_place(const CaseResult& result);

/// One sentence of at most three lines.
std::string headline(const CaseResult& result);

/// Bits as predicted over all fields of a case (isolated, chained): the report's line.
struct PredictedTotals {
  std::int64_t elements = 0;
  std::int64_t as_predicted = 0;
  std::int64_t undetermined = 0;
  std::int64_t differing = 0;
};
PredictedTotals predicted_totals(const CaseResult& result, bool chained);

}  // namespace assay
