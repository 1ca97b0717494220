// Hypotheses about the merge: how the slots are added, and which weights and rows they bring.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "reference_cpu/causes/causes_merge.h"

namespace assay {
namespace {

void propose_sums(const Merging& merging, std::vector<Proposal>& all) {
  const Merge declared = merging.declared();
  const auto as = [&](MergeSum sum, Store weighted) { return Merge{weighted, sum}; };
  const Store other = declared.weighted == Store::Bf16 ? Store::Unrounded : Store::Bf16;
  const char* rounding = other == Store::Bf16 ? "product_rounded" : "product_unrounded";
  const char* rounding_in_words = other == Store::Bf16
                                      ? "weight times value is rounded to bf16 before the sum"
                                      : "weight times value is not rounded to bf16 before the sum";
  const struct {
    std::string_view id;
    std::string_view sentence;
    MergeSum sum;
  } sums[] = {
      {"slots_ascending", "slots are summed in fp32 one by one, ascending", MergeSum::Ascending},
      {"fp32_merge", "slots are summed in fp32 and rounded once", MergeSum::Interleaved},
      {"bf16_merge_by_expert", "slots are added in bf16, in ascending expert order", MergeSum::Bf16ByExpert},
      {"bf16_merge", "slots are added in bf16, in slot order", MergeSum::Bf16BySlot},
      {"bf16_merge", "slots are added in bf16, in descending slot order", MergeSum::Bf16Descending},
  };
  for (const auto& [id, sentence, sum] : sums)
    if (sum != declared.sum)
      all.push_back(merging.propose(id, std::string(sentence), as(sum, declared.weighted)));
  all.push_back(merging.propose(rounding, rounding_in_words, as(declared.sum, other)));
  for (const auto& [id, sentence, sum] : sums)
    if (sum != declared.sum)
      all.push_back(
          merging.propose(rounding, fmt::format("{}, and {}", rounding_in_words, sentence), as(sum, other)));
}

/// The token whose weights explain a wrong token's output best, over a few columns; -1 if none leaves less
/// than a tenth.
std::int64_t weights_used(const Evidence& evidence, const Merging& merging, std::int64_t t) {
  constexpr std::int64_t kColumns = 32;
  const auto& values = evidence.input(Field::hidden_states_unpermute);
  const std::int64_t step = std::max<std::int64_t>(1, evidence.width / kColumns);
  std::int64_t best = -1;
  double least = INFINITY;
  for (std::int64_t other = 0; other < evidence.rows; ++other) {
    const Slots slots = merging.slots(other);
    double left = 0.0;
    double energy = 0.0;
    for (std::int64_t c = 0; c < evidence.width; c += step) {
      const double out = to_float(evidence.out[static_cast<std::size_t>(t * evidence.width + c)]);
      double sum = 0.0;
      for (std::int64_t j = 0; j < merging.top_k(); ++j)
        sum += static_cast<double>(slots.weights[static_cast<std::size_t>(j)]) *
               values[static_cast<std::size_t>((t * merging.top_k() + j) * evidence.width + c)].value;
      left += (out - sum) * (out - sum);
      energy += out * out;
    }
    if (!(left < least) || !(left < 0.1 * energy)) continue;
    least = left;
    best = other;
  }
  return best;
}

void propose_weights_of_others(const Evidence& evidence, const ErrorPlace& place, const Merging& merging,
                               std::vector<Proposal>& all) {
  constexpr std::size_t kProbed = 4;
  std::vector<std::pair<std::int64_t, std::int64_t>> found;  // token, whose weights it has
  for (std::size_t i = 0; i < std::min(kProbed, place.sample.rows.size()); ++i) {
    const std::int64_t t =
        place.sample.rows[i * place.sample.rows.size() / std::min(kProbed, place.sample.rows.size())];
    const std::int64_t other = weights_used(evidence, merging, t);
    if (other >= 0 && other != t) found.emplace_back(t, other);
  }
  if (found.empty()) return;
  const auto [first, its] = found.front();
  const std::int64_t tokens = evidence.rows;
  const std::int64_t away = its - first;
  std::function<std::int64_t(std::int64_t)> from;
  std::string sentence;
  if (std::ranges::all_of(found, [&](const auto& one) { return one.second == its; })) {
    sentence = fmt::format("the weights are those of token {}", its);
    from = [its = its](std::int64_t) { return its; };
  } else {
    sentence = fmt::format("the weights are those of the token {} {}", std::abs(away),
                           away < 0 ? "before" : "further on");
    from = [away, tokens](std::int64_t t) { return (t + away + tokens) % tokens; };
  }
  all.push_back(merging.propose("weights_of_token", std::move(sentence), merging.declared(),
                                [merging, from](std::int64_t t) {
                                  Slots slots = merging.slots(t);
                                  slots.weights = merging.slots(from(t)).weights;
                                  return slots;
                                }));
}

void propose_wrong_weights(const Evidence& evidence, const Merging& merging, std::vector<Proposal>& all) {
  const Merge declared = merging.declared();
  Merge twice = declared;
  Merge none = declared;
  twice.weight_twice = true;
  none.weight_applied = false;
  all.push_back(merging.propose("weight_twice", "the weight is applied twice", twice));
  all.push_back(merging.propose("weight_not_applied", "the weights are not applied", none));
  const float equal = 1.0f / static_cast<float>(merging.top_k());
  all.push_back(merging.propose("weight_not_applied", "all slots weigh the same", declared,
                                [merging, equal](std::int64_t t) {
                                  Slots slots = merging.slots(t);
                                  std::ranges::fill(slots.weights, equal);
                                  return slots;
                                }));
  for (std::int64_t i = 0; i < merging.top_k() && merging.top_k() > 1; ++i)
    all.push_back(merging.propose("one_weight_for_all", fmt::format("all slots have slot {}'s weight", i),
                                  declared, [merging, i](std::int64_t t) {
                                    Slots slots = merging.slots(t);
                                    std::ranges::fill(slots.weights,
                                                      slots.weights[static_cast<std::size_t>(i)]);
                                    return slots;
                                  }));
  for (std::int64_t i = 0; i < merging.top_k(); ++i)
    for (std::int64_t j = i + 1; j < merging.top_k(); ++j)
      all.push_back(merging.propose(
          "weights_permuted", fmt::format("the weights of slots {} and {} are exchanged", i, j), declared,
          [merging, i, j](std::int64_t t) {
            Slots slots = merging.slots(t);
            std::swap(slots.weights[static_cast<std::size_t>(i)], slots.weights[static_cast<std::size_t>(j)]);
            return slots;
          }));
  if (merging.top_k() > 2) {
    all.push_back(merging.propose("weights_permuted", "the weights are applied in reverse order", declared,
                                  [merging](std::int64_t t) {
                                    Slots slots = merging.slots(t);
                                    std::ranges::reverse(slots.weights);
                                    return slots;
                                  }));
    for (const int by : {1, -1})
      all.push_back(merging.propose(
          "weights_permuted",
          by > 0 ? "every slot has the next slot's weight" : "every slot has the slot before's weight",
          declared, [merging, by](std::int64_t t) {
            Slots slots = merging.slots(t);
            std::ranges::rotate(slots.weights, by > 0 ? slots.weights.begin() + 1 : slots.weights.end() - 1);
            return slots;
          }));
  }
  if (evidence.inputs[static_cast<std::size_t>(Field::router_logits)] == nullptr) return;
  const auto unrounded = topk_weights<Predicted>(*evidence.layer, evidence.input(Field::router_logits));
  all.push_back(merging.propose("weights_unrounded", "the weights are not rounded to bf16", declared,
                                [merging, unrounded](std::int64_t t) {
                                  Slots slots = merging.slots(t);
                                  for (std::size_t j = 0; j < slots.weights.size(); ++j)
                                    slots.weights[j] =
                                        unrounded[static_cast<std::size_t>(slots.rows[j])].value;
                                  return slots;
                                }));
}

void propose_wrong_slots(const Evidence& evidence, const ErrorPlace& place, const Merging& merging,
                         std::vector<Proposal>& all) {
  const Merge declared = merging.declared();
  const auto times = [&](std::string_view id, std::string sentence, int count,
                         std::function<bool(std::int64_t token, std::int64_t slot)> which) {
    all.push_back(merging.propose(id, std::move(sentence), declared, [merging, count, which](std::int64_t t) {
      Slots slots = merging.slots(t);
      for (std::int64_t j = 0; j < merging.top_k(); ++j) slots.times.push_back(which(t, j) ? count : 1);
      return slots;
    }));
  };
  Merge copied = declared;
  copied.weight_applied = false;
  for (std::int64_t slot = 0; slot < merging.top_k(); ++slot) {
    const auto is = [slot](std::int64_t, std::int64_t j) { return j == slot; };
    times("slot_missing", fmt::format("slot {} is left out of the sum", slot), 0, is);
    times("slot_doubled", fmt::format("slot {} is added twice", slot), 2, is);
    all.push_back(merging.propose("copy_of_upstream",
                                  fmt::format("the row of slot {} is copied, without its weight", slot),
                                  copied, [merging, slot](std::int64_t t) {
                                    Slots slots = merging.slots(t);
                                    slots.times.assign(slots.rows.size(), 0);
                                    slots.times[static_cast<std::size_t>(slot)] = 1;
                                    return slots;
                                  }));
    for (const std::int64_t away : {-1, 1})
      all.push_back(merging.propose(
          "slot_of_token",
          fmt::format("the row of slot {} is that of the slot {} it", slot, away < 0 ? "before" : "after"),
          declared, [merging, slot, away, rows = evidence.rows * merging.top_k()](std::int64_t t) {
            Slots slots = merging.slots(t);
            auto& row = slots.rows[static_cast<std::size_t>(slot)];
            row = (row + away + rows) % rows;
            return slots;
          }));
  }
  for (const std::int64_t away : {-1, 1})
    if (evidence.rows > 1)
      all.push_back(merging.propose("slot_of_token",
                                    fmt::format("the rows are those of the token {}, under its own weights",
                                                away < 0 ? "before" : "after"),
                                    declared, [merging, away, tokens = evidence.rows](std::int64_t t) {
                                      Slots slots = merging.slots(t);
                                      slots.rows = merging.slots((t + away + tokens) % tokens).rows;
                                      return slots;
                                    }));
  // An expert that all wrong tokens share.
  const auto& selected = evidence.layer->routing.selected;
  const auto slots_of = [&](std::int64_t t) {
    return std::span(selected).subspan(static_cast<std::size_t>(t * merging.top_k()),
                                       static_cast<std::size_t>(merging.top_k()));
  };
  if (place.window.rows.empty() || static_cast<std::int64_t>(place.window.rows.size()) == evidence.rows)
    return;
  for (const auto expert : slots_of(place.window.rows.front())) {
    if (!std::ranges::all_of(place.window.rows, [&](std::int64_t t) {
          return std::ranges::find(slots_of(t), expert) != slots_of(t).end();
        }))
      continue;
    const auto is = [&evidence, expert, top_k = merging.top_k()](std::int64_t t, std::int64_t j) {
      return evidence.layer->routing.selected[static_cast<std::size_t>(t * top_k + j)] == expert;
    };
    times("slot_missing", fmt::format("the slot of expert {} is left out of the sum", expert), 0, is);
    times("slot_doubled", fmt::format("the slot of expert {} is added twice", expert), 2, is);
  }
}

SumOfSlots weighted_slots(const Evidence& evidence, const Merging& merging) {
  const auto& values = evidence.input(Field::hidden_states_unpermute);
  const auto& weights = evidence.input(Field::topk_weights);
  const std::int64_t top_k = merging.top_k();
  return {top_k,
          [&evidence, &values, &weights, top_k](std::int64_t token, std::int64_t slot, std::int64_t column) {
            const std::int64_t s = token * top_k + slot;
            return static_cast<double>(weights[static_cast<std::size_t>(s)].value) *
                   values[index(evidence, s, column)].value;
          },
          [merging](std::string sentence, LostSlot lost) {
            return merging.propose("slots_missing", std::move(sentence), merging.declared(),
                                   [merging, lost](std::int64_t t) {
                                     Slots slots = merging.slots(t);
                                     for (std::int64_t j = 0; j < merging.top_k(); ++j)
                                       slots.times.push_back(lost(t, j) ? 0 : 1);
                                     return slots;
                                   });
          }};
}

}  // namespace

std::vector<Proposal> propose_merge(const Evidence& evidence, const ErrorPlace& place) {
  const Merging merging(evidence);
  std::vector<Proposal> all;
  propose_sums(merging, all);
  propose_wrong_weights(evidence, merging, all);
  propose_weights_of_others(evidence, place, merging, all);
  propose_wrong_slots(evidence, place, merging, all);
  propose_lost_slots(evidence, place, weighted_slots(evidence, merging), all);
  propose_any_order(evidence, place, merging, all);
  return all;
}

}  // namespace assay
