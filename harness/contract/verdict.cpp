#include "harness/contract/verdict.h"

namespace assay {

std::string_view name(Verdict verdict) {
  constexpr std::string_view names[] = {
      "NotMaterialised", "Unsupported", "Passed",    "Mistrusted", "Suspect",    "Unstable", "NotJudged",
      "MissingGolden",   "Failed",      "NonFinite", "WrongDtype", "WrongShape", "TimedOut", "Crashed"};
  static_assert(std::size(names) == static_cast<std::size_t>(kWorstVerdict) + 1);
  return names[static_cast<std::size_t>(verdict)];
}

ExitCode exit_code(Verdict worst_verdict) {
  if (failed(worst_verdict)) return ExitCode::Failed;
  switch (worst_verdict) {
    case Verdict::Passed: return ExitCode::Passed;
    case Verdict::Suspect:
    case Verdict::Unstable:
    case Verdict::Mistrusted: return ExitCode::Suspect;
    case Verdict::NotJudged:
    case Verdict::MissingGolden: return ExitCode::CouldNotJudge;
    default: return ExitCode::NothingCompared;
  }
}

}  // namespace assay
