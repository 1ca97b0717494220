// A Report for continuous integration: JUnit XML.
#pragma once

#include <string>

#include "harness/contract/report.h"

namespace assay {

/// One <testsuite> per case, one <testcase> per field, plus one for the case itself where its verdict is
/// worse than any field's. NotMaterialised and Unsupported are <skipped>; every other verdict than Passed is
/// a <failure> whose `type` is the verdict. Suspect, Mistrusted and MissingGolden are failures too: JUnit has
/// no third state, and a warning that stays green is not read. XML 1.0, UTF-8; characters that XML forbids
/// and bytes that are not UTF-8 become U+FFFD.
std::string render_junit(const Report& report);

}  // namespace assay
