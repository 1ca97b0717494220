// What two runs of the same problem say differently, as one sentence each.
#pragma once

#include <optional>
#include <string>

#include "harness/contract/field.h"

namespace assay {

enum class Severity {
  Same,        // information: nothing that is judged changed
  Legal,       // changed, and still what the contract allows
  Regression,  // newly failing, further off, or missing
};

struct Finding {
  Severity severity = Severity::Same;
  std::string sentence;
  std::optional<Field> field{};  // that it is about, where it is about one
};

}  // namespace assay
