// Approved changes of a baseline as a JSON file: who let what pass, and why. Schema "assay-approvals",
// version 1.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "harness/judge/approvals.h"

namespace assay::cli {

/// "ci/before.json" and "ci/before.h5": "ci/before.approved.json".
std::string approvals_beside(const std::string& baseline);
inline constexpr const char* kApprovalsEnding = ".approved.json";

/// Approvals of a file, oldest first; none where it is not there. Throws InputError where it is none.
std::vector<ApprovedFinding> read_approvals(const std::string& path);

/// One decision: all that was open in one run.
struct Decision {
  Approval approval;
  std::string revision;  // of the candidate's sources
  std::string assay;
  std::string baseline;
  std::string candidate;
  std::vector<Finding> changes;
};

/// Adds the decision; the file is then whole, or as it was before.
void add_approval(const std::string& path, const Decision& decision);

/// What files and the program's JSON say of a finding.
nlohmann::ordered_json finding_json(const Finding& finding);
std::string_view name(Severity severity);

/// Who works here: git's user, else $USER, else "".
std::string present_user();
/// The revision checked out here, as git describes it; "" without one.
std::string present_revision();

}  // namespace assay::cli
