// Below a field's worst element: its causes, its statistics and whether its checks could have failed.
#pragma once

#include <string>

#include "reports/text.h"

namespace assay {

/// Hypotheses about the error, best first.
std::string causes_text(const FieldResult& result, const TextOptions& options);

/// The tests that fired; all tests and the histogram of ulps when verbose. `way` is "isolated" or "chained".
std::string statistics_text(const Judgement& judgement, std::string_view way, const TextOptions& options);

/// Wrong copies that the field's checks accept; what became of every copy when verbose.
std::string vacuity_text(const FieldResult& result, const TextOptions& options);

}  // namespace assay
