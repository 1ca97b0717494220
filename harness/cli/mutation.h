// One planted fault and what the judge said of it.
#pragma once

#include <string_view>

#include "fixtures/faults.h"
#include "harness/problem.h"
#include "harness/report.h"

namespace assay::cli {

struct Mutation {
  CaseResult result;
  bool killed = false;       // the verdict is not Passed
  bool localised = false;    // the first stage with an error of its own is the planted one
  bool earlier_red = false;  // a field before it did not pass
};

/// Runs the predicted arithmetic with the fault, as a Hopper candidate that declares its accumulators, and judges it.
Mutation plant(const FaultRow& fault, const Problem& problem, std::string_view contract);

}  // namespace assay::cli
