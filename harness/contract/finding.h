// What two runs of the same problem say differently, as one sentence each.
#pragma once

#include <string>

namespace assay {

enum class Severity {
  Same,        // information: nothing that is judged changed
  Legal,       // changed, and still what the contract allows
  Regression,  // newly failing, further off, or missing
};

struct Finding {
  Severity severity = Severity::Same;
  std::string sentence;
};

}  // namespace assay
