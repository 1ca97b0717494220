// A Derivation for the terminal and as JSON.
#pragma once

#include <string>

#include "harness/contract/derivation.h"
#include "reports/text.h"

namespace assay {

/// Verdict, values, terms, sums and bound of one element. Without `verbose` long lists of sums and experts
/// show their two ends.
std::string render_text(const Derivation& derivation, const TextOptions& options = {});

/// One JSON object, schema "assay-derivation", version 1: every member of harness/contract/derivation.h;
/// doubles as in reports/json.h.
std::string to_json(const Derivation& derivation);

}  // namespace assay
