// Below a case's table: the elements to argue about, and tokens that took other experts.
#pragma once

#include <string>

#include "reports/text.h"

namespace assay {

/// Worst elements and notes of fields that did not pass; of every field when verbose.
std::string field_details(const CaseResult& result, const TextOptions& options);

/// Routing flips, legal or not: token, experts exchanged, gap and the gap that is allowed. At most eight
/// unless verbose.
std::string routing_details(const CaseResult& result, const TextOptions& options);

}  // namespace assay
