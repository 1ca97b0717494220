#include "harness/judge/own_rounding.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include <fmt/format.h>

#include "harness/contract/noise.h"
#include "harness/judge/tail.h"

namespace assay {
namespace {

constexpr std::int64_t kMostTokens = 256;
constexpr double kCoarsest = 0.25;  // share of a row's values that are coarse
constexpr int kFinerBy = 3;         // binades: a fine value's last place is at most 1/8 of the coarse ones'
constexpr double kShape =
    2.0;  // the model's errors of coarse and fine values are in proportion to within this
constexpr double kShapeless = 0.125;            // of tokens the errors may have any shape
constexpr double kMostEvidence = 8.0;           // of one token
constexpr double kOfFine = 0.6321205588285577;  // 1 - exp(-1)
constexpr double kSmallest = 0x1p-117;          // below, neighbours are not one ulp of the exponent away
constexpr double kLn10 = 2.302585092994046;

/// An element with modelled noise.
struct ModelledValue {
  std::uint64_t significand;
  double coarseness;  // last place / modelled mean error
  double places;      // |out - rounded reference| in last places
};

std::vector<ModelledValue> modelled_values(StoredSpan out, std::span<const Interval> reference) {
  std::vector<ModelledValue> elements;
  elements.reserve(reference.size());
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const Interval& x = reference[i];
    const Stored value = out[i];
    const Stored rounded = stored_as(value.dtype, x.ref);
    if (!value.finite() || !rounded.finite() || !(std::fabs(x.ref) > kSmallest) || !(x.mean > 0.0f)) continue;
    const RoundingCell cell = rounding_cell(x.ref, rounded.value, value.dtype);
    if (cell.gap != cell.gap_below) continue;  // a power of two has two last places
    elements.push_back({std::bit_cast<std::uint64_t>(x.ref) & ((std::uint64_t{1} << 52) - 1),
                        cell.gap / x.mean,
                        std::fabs(static_cast<double>(value.value) - rounded.value) / cell.gap});
  }
  // Values that repeat another's significand are no events of their own.
  std::ranges::sort(elements, {}, &ModelledValue::significand);
  const auto repeated = std::ranges::unique(elements, {}, &ModelledValue::significand);
  elements.erase(repeated.begin(), repeated.end());
  return elements;
}

/// exp(theta A - B), at most 1 on average (NUMERICS).
double evidence(const CoarseAndFine& row) {
  const double theta =
      std::log1p(kOfFine * static_cast<double>(row.fine) / (kShape * static_cast<double>(row.coarse)));
  return std::min(kMostEvidence,
                  std::exp(theta * static_cast<double>(row.coarse_differing) - row.fine_errors));
}

}  // namespace

bool looked_at(std::int64_t token, std::int64_t tokens) {
  return token % ((tokens + kMostTokens - 1) / kMostTokens) == 0;
}

CoarseAndFine coarse_and_fine(StoredSpan out, std::span<const Interval> reference) {
  CoarseAndFine result;
  std::vector<ModelledValue> elements = modelled_values(out, reference);
  if (elements.empty()) return result;
  const auto least = elements.begin() + static_cast<std::ptrdiff_t>((1.0 - kCoarsest) *
                                                                    static_cast<double>(elements.size() - 1));
  std::ranges::nth_element(elements, least, {}, &ModelledValue::coarseness);
  const double coarse = least->coarseness;
  for (const ModelledValue& x : elements) {
    if (x.coarseness >= coarse) {
      ++result.coarse;
      result.coarse_differing += x.places > 0.0;
    } else if (const int binades = std::ilogb(coarse / x.coarseness); binades >= kFinerBy) {
      ++result.fine;
      result.fine_errors += std::min(1.0, std::ldexp(x.places, -binades));
    }
  }
  return result;
}

StatisticalTest own_rounding_test(std::span<const CoarseAndFine> rows, double log_share) {
  struct Token {
    std::uint64_t key = 0;
    double evidence = 0.0;  // mean of its rows
    double rows = 0.0;
  };
  std::map<std::int64_t, Token> tokens;
  double coarse = 0.0;
  double differing = 0.0;
  double fine = 0.0;
  double errors = 0.0;
  for (const CoarseAndFine& row : rows) {
    if (row.fine == 0) continue;
    Token& token = tokens[row.token];
    token.key += row.key;
    token.evidence += evidence(row);
    token.rows += 1.0;
    coarse += static_cast<double>(row.coarse);
    differing += static_cast<double>(row.coarse_differing);
    fine += static_cast<double>(row.fine);
    errors += row.fine_errors;
  }
  const double expected = 1.0 + kShapeless * (kMostEvidence - 1.0);
  std::vector<Unit> units;
  std::set<std::uint64_t> seen;
  for (const auto& [number, token] : tokens)
    if (seen.insert(token.key).second) units.push_back({token.evidence / token.rows, expected});

  StatisticalTest test{std::string(kOwnRounding), "the field"};
  test.limit = 1.0;
  test.log10_share = log_share / kLn10;
  if (units.empty()) return test;
  test.observed = differing / coarse;
  test.expected = std::min(1.0, kShape * errors / fine);
  const double chance = log_chance_of_units(units);
  test.log10_chance = chance / kLn10;
  test.beyond = chance < log_share;
  // Where all rows show the same, and the fine values what they show.
  const double needed = expected * limit_of_units(units.size(), log_share);
  const double counted = static_cast<double>(rows.size());
  const double theta = std::log1p(kOfFine * fine / (kShape * coarse));
  if (needed < kMostEvidence)
    test.limit = std::min(1.0, (std::log(needed) * counted + errors) / (theta * coarse));
  return test;
}

std::string own_rounding_in_words(const StatisticalTest& test) {
  return fmt::format(
      "{:.3g} % of the values with the coarsest last place differ from the rounded reference, while errors "
      "of finer "
      "values account for {:.3g} % at most: errors are proportional to a value's own last place, as where "
      "its last "
      "rounding is not to nearest, ties to even",
      100.0 * test.observed, 100.0 * test.expected);
}

}  // namespace assay
