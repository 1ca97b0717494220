// Whether a field's errors are those of what it sums, or of its own last rounding (NUMERICS: a wrong last
// rounding). Errors that were carried on know nothing of a value's last place, an error of rounding is
// proportional to it. No size of the noise is assumed, only that elements of a row share its shape.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "harness/contract/reference.h"
#include "harness/contract/stored.h"

namespace assay {

inline constexpr std::string_view kOwnRounding = "own rounding";

/// One row: its values of coarse last place beside their modelled error, and those of fine last place.
struct CoarseAndFine {
  std::int64_t token = 0;  // that the row is of
  std::uint64_t key = 0;   // equal where rows repeat one another
  std::int64_t coarse = 0;
  std::int64_t coarse_differing = 0;  // from the rounded reference
  std::int64_t fine = 0;
  double fine_errors = 0.0;  // each at most 1: in units of a coarse value's last place
};
CoarseAndFine coarse_and_fine(StoredSpan out, std::span<const Interval> reference);

/// Whether the token is looked at: kMostTokens of them, evenly spread.
bool looked_at(std::int64_t token, std::int64_t tokens);

/// Whether coarse values differ more often than what fine ones show accounts for. Tokens are independent, and
/// those whose rows have equal keys are one.
StatisticalTest own_rounding_test(std::span<const CoarseAndFine> rows, double log_share);

/// What the test says where it is beyond its limit.
std::string own_rounding_in_words(const StatisticalTest& test);

}  // namespace assay
