// Reports made by hand for the renderers' tests and for looking at pages while they are drawn. Their numbers
// are invented.
#pragma once

#include "harness/contract/report.h"

namespace assay::sample {

/// A golden of a full-width layer, forward and backward: everything passes and every bit is as predicted.
CaseResult passing_case();

/// A kernel with a faulty down projection: `second_gemm` fails on its own, the fields after it inherit; one
/// field of each other verdict.
CaseResult failing_case();

/// Both cases; together they set every member of every struct to something else than its default.
Report report();

/// `count` small passing cases and a failing one.
Report many_cases(int count);

/// `failing` cases that fail, then `passing` ones.
Report many_failures(int failing, int passing);

/// The same, and no two alike in any number that a judge measures.
Report distinct_failures(int failing, int passing);

/// Names that try to leave the text they stand in: tags, quotes, control characters, bytes that are not
/// UTF-8.
Report hostile_report();

}  // namespace assay::sample
