#include "reference_cpu/planted/planted.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "reference_cpu/topk_torch.h"

namespace assay {

void plant_probabilities(const Fault& fault, std::span<float> probabilities) {
  if (!fault.hits(FaultKind::SelectBf16, Field::selected_experts)) return;
  for (auto& p : probabilities) p = to_float(round_to_bf16(p));
}

void plant_selection(const Fault& fault, std::span<const float> probabilities, std::int64_t token,
                     std::int64_t tokens, std::span<std::int32_t> selected) {
  if (fault.field != Field::selected_experts) return;
  const auto experts = static_cast<std::int32_t>(probabilities.size());
  const std::vector<double> wide(probabilities.begin(), probabilities.end());
  const auto top_k = static_cast<std::int64_t>(selected.size());
  switch (fault.kind) {
    case FaultKind::TiesHighestIndex: {
      const auto chosen = topk_lowest_index(std::vector<double>(wide.rbegin(), wide.rend()), top_k);
      std::ranges::transform(chosen, selected.begin(),
                             [&](std::int32_t index) { return experts - 1 - index; });
      break;
    }
    case FaultKind::NextBest:
      if (top_k < experts) selected.back() = topk_lowest_index(wide, top_k + 1).back();
      break;
    case FaultKind::Ascending: std::ranges::reverse(selected); break;
    case FaultKind::ExpertPlusOne:
      if (token == tokens / 2) selected.back() = (selected.back() + 1) % experts;
      break;
    case FaultKind::RepeatExpert:
      if (token == tokens / 2) selected.back() = selected.front();
      break;
    default: break;
  }
}

std::vector<float> planted_scores(const Fault& fault, std::span<const PredictedValue> logits,
                                  std::int64_t experts, std::int64_t token,
                                  std::span<const std::int32_t> selected) {
  if (fault.field != Field::topk_weights) return {};
  const auto tokens = static_cast<std::int64_t>(logits.size()) / experts;
  const auto logit = [&](std::int64_t t, std::int64_t e) {
    return logits[static_cast<std::size_t>(t * experts + e)].value;
  };
  std::vector<float> scores(static_cast<std::size_t>(experts));
  const auto each = [&](auto score) {
    for (std::int64_t e = 0; e < experts; ++e) scores[static_cast<std::size_t>(e)] = score(e);
  };
  switch (fault.kind) {
    case FaultKind::SigmoidScores:
      each([&](std::int64_t e) { return 1.0f / (1.0f + std::exp(-logit(token, e))); });
      return scores;
    case FaultKind::RawLogits: each([&](std::int64_t e) { return logit(token, e); }); return scores;
    case FaultKind::SoftmaxOverTokens:
      each([&](std::int64_t e) {
        float sum = 0.0f;
        for (std::int64_t t = 0; t < tokens; ++t) sum += std::exp(logit(t, e) - logit(token, e));
        return 1.0f / sum;
      });
      return scores;
    case FaultKind::SoftmaxOfSelected: {
      float top = -std::numeric_limits<float>::infinity();
      float sum = 0.0f;
      for (const auto e : selected) top = std::max(top, logit(token, e));
      for (const auto e : selected) sum += std::exp(logit(token, e) - top);
      each([&](std::int64_t e) { return std::exp(logit(token, e) - top) / sum; });
      return scores;
    }
    case FaultKind::SoftmaxOverflows: {
      float sum = 0.0f;
      for (std::int64_t e = 0; e < experts; ++e) sum += std::exp(logit(token, e));
      each([&](std::int64_t e) { return std::exp(logit(token, e)) / sum; });
      return scores;
    }
    default: return {};
  }
}

void plant_gather(const Fault& fault, Routing& routing) {
  if (fault.field != Field::gather_indices) return;
  auto& gather = routing.gather;
  switch (fault.kind) {
    case FaultKind::GatherDuplicate:
      if (gather.size() > 1) gather[gather.size() / 2] = gather[gather.size() / 2 - 1];
      break;
    case FaultKind::GatherReversed:
      for (std::size_t e = 0; e + 1 < routing.offsets.size(); ++e)
        std::reverse(gather.begin() + routing.offsets[e], gather.begin() + routing.offsets[e + 1]);
      break;
    case FaultKind::GatherShifted:
      if (!gather.empty()) std::ranges::rotate(gather, gather.begin() + 1);
      break;
    default: break;
  }
}

std::vector<std::int32_t> planted_counts(const Fault& fault, std::vector<std::int32_t> counts) {
  if (fault.hits(FaultKind::CountPlusOne, Field::token_counts_by_expert)) ++counts[counts.size() / 2];
  return counts;
}

}  // namespace assay
