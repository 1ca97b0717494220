#include "harness/contract/report.h"

#include <array>

namespace assay {

std::string_view name(VacuityOutcome outcome) {
  constexpr std::array<std::string_view, 3> names = {"rejected", "not applicable", "would pass"};
  return names[static_cast<std::size_t>(outcome)];
}

std::string_view name(RoutingTier tier) {
  constexpr std::array<std::string_view, 4> names = {"exact tie", "admissible", "suspicious", "failed"};
  return names[static_cast<std::size_t>(tier)];
}

}  // namespace assay
