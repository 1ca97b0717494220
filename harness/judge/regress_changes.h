// What two judgements of one field say differently.
#pragma once

#include "harness/contract/finding.h"
#include "harness/contract/report.h"

namespace assay {

/// One finding with a clause for each thing that changed, or nothing. `where` stands before the field's name.
/// A field that fails now is never Legal: what is further off is a Regression, the rest is said as Same.
std::optional<Finding> field_change(const std::string& where, const FieldResult& before,
                                    const FieldResult& now);

/// A whole case's verdict, where no field tells.
std::optional<Finding> verdict_change(const std::string& what, Verdict before, Verdict now);

}  // namespace assay
