#include "reference_cpu/stages.h"

#include <algorithm>
#include <numeric>

namespace assay {

Routing get_token_counts_and_gather_indices(const MoeConfig& config,
                                            std::vector<std::int32_t> selected_experts) {
  Routing routing;
  routing.selected = std::move(selected_experts);
  routing.counts.assign(static_cast<std::size_t>(config.num_experts), 0);
  for (const auto expert : routing.selected) ++routing.counts[static_cast<std::size_t>(expert)];
  routing.offsets.assign(routing.counts.size() + 1, 0);
  std::partial_sum(routing.counts.begin(), routing.counts.end(), routing.offsets.begin() + 1,
                   std::plus<std::int64_t>());
  routing.gather.resize(routing.selected.size());
  std::iota(routing.gather.begin(), routing.gather.end(), 0);
  std::ranges::stable_sort(routing.gather, {}, [&](std::int32_t slot) {
    return routing.selected[static_cast<std::size_t>(slot)];
  });
  return routing;
}

}  // namespace assay
