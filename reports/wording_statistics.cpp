#include "reports/wording.h"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>

namespace assay {

RoutingTier tier_of(const RoutingFlip& flip) {
  if (!flip.admissible) return RoutingTier::Failed;
  return flip.tier == RoutingTier::Failed ? RoutingTier::Admissible : flip.tier;
}

Mark mark(RoutingTier tier) {
  switch (tier) {
    case RoutingTier::ExactTie:
    case RoutingTier::Admissible: return Mark::Good;
    case RoutingTier::Suspicious: return Mark::Doubt;
    default: return Mark::Bad;
  }
}

std::string_view words(RoutingTier tier) {
  constexpr std::string_view all[] = {"tie", "admissible", "suspicious", "WRONG"};
  return all[static_cast<std::size_t>(tier)];
}

std::string amount_text(const StatisticalTest& test, double amount) {
  if (amount == 0.0) return "0";
  return test.measure == "bias" ? fmt::format("{:.3g} ulp", amount) : fmt::format("{:.3g} %", 100.0 * amount);
}

std::string chance_text(const StatisticalTest& test) {
  const auto power = [](double log10) {
    if (std::isinf(log10)) return std::string("0");
    return log10 > -2.0 ? fmt::format("{:.2g}", std::pow(10.0, log10))
                        : fmt::format("1e{:.0f}", std::ceil(log10));
  };
  return fmt::format("{}; fires below {}",
                     test.log10_chance >= 0.0 ? "as expected" : "at most " + power(test.log10_chance),
                     power(test.log10_share));
}

std::string statistics_line(const Statistics& s) {
  std::string text;
  if (s.z2_of_rounding > 0.0 || s.z2 > 0.0)
    text = fmt::format("mean z² {:.4g}, of rounding alone {:.4g}; ", s.z2, s.z2_of_rounding);
  if (!s.max_contract_ulps_at.empty())
    text += fmt::format("largest contract ulp {:.3g} at {}; ", s.max_contract_ulps,
                        place_text(s.max_contract_ulps_at));
  return text + fmt::format("independent: {} {}", grouped_digits(s.unit_count), s.units);
}

std::string bucket_text(std::int64_t first) {
  if (first < 3) return std::to_string(first);
  const std::int64_t last = 2 * (first - 1);
  return first > (std::int64_t{1} << 15) ? fmt::format("{}+", first) : fmt::format("{}-{}", first, last);
}

std::string histogram_text(const Statistics& statistics) {
  std::string text;
  for (const auto& [first, count] : statistics.ulp_histogram)
    text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", bucket_text(first), grouped_digits(count));
  return text;
}

std::string routing_text(const CaseResult& result) {
  std::string text = fmt::format("{} token{} took other experts than the reference",
                                 grouped_digits(static_cast<std::int64_t>(result.flips.size())),
                                 result.flips.size() == 1 ? "" : "s");
  for (const auto& [tier, what] :
       {std::pair(RoutingTier::ExactTie, "exact ties"), std::pair(RoutingTier::Admissible, "admissible"),
        std::pair(RoutingTier::Suspicious, "suspicious"), std::pair(RoutingTier::Failed, "wrong")})
    text += fmt::format("{}{} {}", tier == RoutingTier::ExactTie ? ": " : ", ",
                        std::ranges::count(result.flips, tier, tier_of), what);
  const auto field = std::ranges::find(result.fields, Field::selected_experts, &FieldResult::field);
  if (field == result.fields.end() || field->chained.statistics.tests.empty()) return text;
  const StatisticalTest& flips = field->chained.statistics.tests.front();
  const auto tokens = static_cast<double>(result.tokens);
  return text + fmt::format("; beside ties at most {:.2g} expected of the logits' noise, limit {:.3g}",
                            flips.expected * tokens, flips.limit * tokens);
}

}  // namespace assay
