// Changes that somebody has let pass: what regress found then, who approved it and why.
#pragma once

#include <span>
#include <vector>

#include "harness/contract/finding.h"

namespace assay {

/// A finding as it was when it was approved, with its approval.
using ApprovedFinding = Finding;

/// Whether the approval covers the finding: of the same case and field, no graver, every figure that changed
/// is among those approved and no larger. A finding without figures (a field gone, another contract) is
/// covered word for word. NaN and what could not be compared never are.
bool covers(const ApprovedFinding& approved, const Finding& finding);

/// Findings that an approval covers become Approved and say by whom and why; others of a field for which
/// there is one say what was approved. The gravest first, as before.
std::vector<Finding> with_approvals(std::vector<Finding> findings, std::span<const ApprovedFinding> approved);

/// What is to be approved: changes that no approval covers. Throws InputError where one of them cannot be.
std::vector<Finding> to_approve(std::span<const Finding> findings);

}  // namespace assay
