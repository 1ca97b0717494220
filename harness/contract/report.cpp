#include "harness/contract/report.h"

#include <array>

#include <fmt/format.h>

#include "harness/contract/digits.h"

namespace assay {

std::string rejected_in_words(const Judgement& judgement) {
  const auto of = [](std::int64_t some, std::int64_t all) {
    return fmt::format("{} of {}", grouped_digits(some), grouped_digits(all));
  };
  const std::string elements = of(judgement.rejected, judgement.elements);
  if (judgement.tokens == 0) return elements;
  return fmt::format("{} tokens, {} ids", of(judgement.rejected_tokens, judgement.tokens), elements);
}

std::string_view name(VacuityOutcome outcome) {
  constexpr std::array<std::string_view, 3> names = {"rejected", "not applicable", "would pass"};
  return names[static_cast<std::size_t>(outcome)];
}

std::string_view name(RoutingTier tier) {
  constexpr std::array<std::string_view, 4> names = {"exact tie", "admissible", "suspicious", "failed"};
  return names[static_cast<std::size_t>(tier)];
}

}  // namespace assay
