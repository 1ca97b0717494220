// What assay diff found, for a terminal, as JSON and as a page.
#pragma once

#include <string>

#include "harness/contract/parting.h"
#include "reports/text.h"
#include "reports/wording.h"

namespace assay {

/// The sentence, both names, a row per field, routing. Ends with a newline.
std::string render_parting_text(const Parting& parting, const TextOptions& options);

/// Schema "assay-diff", version 1. `judged`: the report with both as judged, in schema "assay-report".
std::string parting_json(const Parting& parting, const Report& judged);

/// A page that needs no network and no script. `judged` as above: command and environment.
std::string render_parting_html(const Parting& parting, const Report& judged);

/// What text and page say of a field: words of its columns.
struct PartingCells {
  std::string field;
  std::string elements;
  std::string differ;
  std::string ulps;
  std::string in_a;
  std::string in_b;
  std::string rms_a;
  std::string rms_b;
  std::string nearer;
};
PartingCells parting_cells(const FieldParting& one);
/// "≠" where the two part, "=" where they do not, "-" where nothing was compared.
std::string_view parting_sign(const FieldParting& one);
/// Of the exit code.
Mark mark(const Parting& all);

/// "in A weight times value is rounded to bf16, which B does not do; ...": what separates the two in other
/// fields than the first; "" where nothing does.
std::string others_sentence(const Parting& parting);
/// "13 of 13 tokens take the same experts, ..."; "" where routing was not compared.
std::string routing_sentence(const RoutingAgreement& routing);
/// "token 5: A alone takes 3, B alone 7; gap 0 in A's logits (a tie), 0.004 in B's"
std::string token_sentence(const RoutingParting& one);

}  // namespace assay
