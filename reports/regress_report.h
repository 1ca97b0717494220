// What assay regress found, as a page: every change with both sides.
#pragma once

#include <span>
#include <string>

#include "harness/contract/field_set.h"
#include "harness/contract/finding.h"
#include "harness/contract/report.h"

namespace assay {

struct RegressSide {
  std::string name;  // of the file
  const Report* report = nullptr;
  const FieldSet* fields = nullptr;  // of a dump: then any element can be shown
};

/// A page that needs no network and no script. A is the baseline, B the candidate; `run`: date, command and
/// environment of the comparison.
std::string render_regress_html(std::span<const Finding> findings, const RegressSide& a, const RegressSide& b,
                                const Report& run);

}  // namespace assay
