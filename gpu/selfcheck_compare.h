// Two candidates of one problem, field by field.
#pragma once

#include <cstdint>

#include "harness/contract/candidate.h"

namespace assay::gpu {

/// Fields both have; prints those that differ, or one line that none does. The number of elements that
/// differ, 0 where they need not be equal.
std::int64_t compare_candidates(const char* what, const Candidate& a, const Candidate& b, bool expect_equal);

}  // namespace assay::gpu
