#include "harness/contract/row_order.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "harness/contract/error.h"

namespace assay {

std::string_view name(ExpertRowOrder order) { return order == ExpertRowOrder::Any ? "any" : "ascending"; }

ExpertRowOrder parse_row_order(std::string_view text) {
  for (const ExpertRowOrder order : {ExpertRowOrder::Ascending, ExpertRowOrder::Any})
    if (text == name(order)) return order;
  throw UsageError(fmt::format("unknown row order '{}'; valid: ascending, any", text));
}

bool same_slots_per_expert(const Routing& routing, std::span<const std::int32_t> gather) {
  if (gather.size() != routing.gather.size()) return false;
  std::vector<std::int32_t> sorted(gather.begin(), gather.end());
  std::vector<std::int32_t> expected = routing.gather;
  for (std::size_t e = 0; e + 1 < routing.offsets.size(); ++e) {
    const auto begin = routing.offsets[e];
    const auto end = routing.offsets[e + 1];
    std::sort(sorted.begin() + begin, sorted.begin() + end);
    std::sort(expected.begin() + begin, expected.begin() + end);
  }
  return sorted == expected;
}

}  // namespace assay
