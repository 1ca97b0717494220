#include "harness/contract/parting.h"

#include <algorithm>

namespace assay {

ExitCode exit_code(const Parting& parting) {
  if (std::ranges::none_of(parting.fields, &FieldParting::compared) && !parting.first)
    return ExitCode::NothingCompared;
  Verdict both = Verdict::Passed;
  for (const PartingSide* side : {&parting.a, &parting.b})
    if (!side->legal()) both = worst(both, side->judged.verdict);
  const ExitCode judged = exit_code(both);
  return judged == ExitCode::Passed && parting.first ? ExitCode::Suspect : judged;
}

}  // namespace assay
