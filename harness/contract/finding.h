// What two runs of the same problem say differently, as one sentence each.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "harness/contract/field.h"
#include "harness/contract/verdict.h"

namespace assay {

enum class Severity {
  Same,        // information: nothing that is judged changed
  Approved,    // changed, and somebody has said that it may
  Legal,       // changed, and still what the contract allows
  Regression,  // newly failing, further off, or missing
};

/// What was counted or measured on both sides; more is worse.
struct Figure {
  std::string what;  // "isolated worst error", "chained other bits", "changed elements"
  double before = 0.0;
  double now = 0.0;
};

/// Who let a change pass, and why.
struct Approval {
  std::string by;
  std::string why;
  std::string when;  // UTC, ISO 8601
};

struct Finding {
  Severity severity = Severity::Same;
  std::string sentence;
  // Of whom it speaks, where it speaks of one case or one field.
  std::string problem = {};
  std::string candidate = {};
  std::optional<Field> field = {};
  std::optional<Verdict> before = {};
  std::optional<Verdict> now = {};
  std::vector<Figure> figures = {};  // that changed
  bool incomparable = false;         // nothing was compared: that nobody can approve
  std::optional<Approval> approval = {};
};

}  // namespace assay
