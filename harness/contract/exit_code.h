// The program's exit codes: one enum, documented in `assay --help`.
#pragma once

namespace assay {

enum class ExitCode : int {
  Passed = 0,           // everything compared has passed
  Failed = 1,           // a comparison failed
  Usage = 2,            // the command line is wrong
  CouldNotJudge = 3,    // file, schema, a golden's own defect, a device that is not there
  Suspect = 4,          // nothing failed, something is suspect, unstable or mistrusted
  NothingCompared = 77  // never a pass
};

}  // namespace assay
