// The command line that explains an element of a report.
#pragma once

#include <string>

#include "harness/contract/report.h"

namespace assay::cli {

/// "assay explain SOURCE --field second_gemm --at row=14,col=59" for the worst element of the first field
/// that did not pass, chained where only the chain is wrong; empty where no element is named. `source` names
/// problem and candidate.
std::string explain_words(const CaseResult& result, const std::string& source);

}  // namespace assay::cli
