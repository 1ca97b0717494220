// A Report, what changed since another, and where two candidates part as Markdown: made for the comment of a
// pull request.
#pragma once

#include <span>
#include <string>

#include "harness/contract/finding.h"
#include "harness/contract/parting.h"
#include "harness/contract/report.h"

namespace assay {

/// One line of verdict, a row per case that did not pass, its fields folded; passing cases are counted and
/// folded. No dates and no times: the same results give the same bytes.
std::string render_markdown(const Report& report);

/// Findings of regress: the worst first, those that say the same folded.
std::string render_markdown(std::span<const Finding> findings);

/// The sentence, under which contracts each is legal, a row per field that parts, the others folded; routing.
/// `judged`: for its command.
std::string render_markdown(const Parting& parting, const Report& judged);

}  // namespace assay
