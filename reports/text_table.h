// The table of one case: a row per field.
#pragma once

#include <string>

#include "reports/text.h"

namespace assay {

/// Leaves out detail, least needed first, until the table fits `options.width`.
std::string field_table(const CaseResult& result, const TextOptions& options);

}  // namespace assay
