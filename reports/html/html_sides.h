// One place of a field on two sides, A and B, with what was accepted there.
#pragma once

#include <optional>
#include <string>

#include "harness/contract/report.h"

namespace assay::html {

struct SidesAt {
  Element about;            // place, reference and interval
  std::optional<double> a;  // what each side holds there; none: not known
  std::optional<double> b;
  std::string reference = "reference";  // whose it is
};

/// A number line with both values, and a table: where, A, B, reference, accepted.
std::string sides_figure(Field field, const SidesAt& at, const std::string& caption);

}  // namespace assay::html
