// A sweep over a pipeline's configs: each on the same problems, compared with one another.
#pragma once

#include <string>
#include <vector>

#include "harness/contract/report.h"
#include "reports/text.h"

namespace assay {

/// "plugin:./mine.so#tiles=64" of "plugin:./mine.so#tiles=64, second run": what a sweep has one row for.
std::string_view swept_config(const CaseResult& result);

/// The cases of each config together, the worst config first: by its worst verdict, then by how many cases
/// did not pass, then by its largest error. Otherwise in the order they came.
std::vector<CaseResult> sweep_order(std::vector<CaseResult> cases);

/// One line per config in that order: its verdict, what became of its cases, its largest error, and what its
/// worst case says. Ends with an empty line; empty without cases.
std::string sweep_table(const std::vector<CaseResult>& cases, const TextOptions& options = {});

}  // namespace assay
