// What can be said of a field, from best to worst, and how verdicts combine.
#pragma once

#include <string_view>

#include "harness/contract/exit_code.h"

namespace assay {

enum class Verdict {
  NotMaterialised,  // the candidate does not have the field
  Unsupported,      // the pipeline cannot run this problem
  Passed,
  Mistrusted,  // the comparison could not have failed
  Suspect,     // within the bound, yet not as declared
  Unstable,    // other bits for the same input in the same process
  NotJudged,   // it was to be judged and was not: memory that ran out, an interrupted run
  MissingGolden,
  Failed,
  NonFinite,
  WrongDtype,
  WrongShape,
  TimedOut,  // the implementation did not return within its time
  Crashed,   // the implementation ended its process
};
inline constexpr Verdict kWorstVerdict = Verdict::Crashed;

std::string_view name(Verdict verdict);

/// The worse of two, in the order of the enum.
constexpr Verdict worst(Verdict a, Verdict b) { return a < b ? b : a; }

/// Whether the verdict says that something was compared, or should have been and could not.
constexpr bool compared(Verdict verdict) {
  return verdict != Verdict::NotMaterialised && verdict != Verdict::Unsupported;
}

/// Failed-like verdicts: exit code 1.
constexpr bool failed(Verdict verdict) { return verdict >= Verdict::Failed; }

ExitCode exit_code(Verdict worst_verdict);

}  // namespace assay
