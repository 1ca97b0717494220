// Hypotheses about the merge: how the slots are added, and which weights and rows they bring.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include <fmt/format.h>

#include "reference_cpu/causes/causes.h"

namespace assay {
namespace {

enum class MergeSum { Interleaved, Ascending, Bf16BySlot, Bf16ByExpert, Bf16Descending };

float to_bf16(float x) { return to_float(round_to_bf16(x)); }

/// What a hypothesis makes of one token: the slots' weights, and which row (slot index) each slot brings. A
/// weight may be applied through another function than the product.
struct Slots {
  std::vector<float> weights;      // [K]
  std::vector<std::int64_t> rows;  // [K]: rows of hidden_states_unpermute
  std::vector<int> times{};        // [K]: how often a slot is added; empty = once each
};

struct Merge {
  Store weighted;
  MergeSum sum;
  bool weight_twice = false;
  bool weight_applied = true;
};

float add_slots(std::span<const float> terms, std::span<const std::int32_t> by_expert, MergeSum how) {
  const std::size_t n = terms.size();
  float sum = 0.0f, lanes[4] = {};
  switch (how) {
    case MergeSum::Interleaved:
      for (std::size_t j = 0; j < n; ++j) lanes[j % 4] += terms[j];
      return lanes[0] + lanes[1] + lanes[2] + lanes[3];
    case MergeSum::Ascending:
      for (std::size_t j = 0; j < n; ++j) sum += terms[j];
      return sum;
    case MergeSum::Bf16BySlot:
      for (std::size_t j = 0; j < n; ++j) sum = to_bf16(sum + terms[j]);
      return sum;
    case MergeSum::Bf16Descending:
      for (std::size_t j = n; j-- > 0;) sum = to_bf16(sum + terms[j]);
      return sum;
    case MergeSum::Bf16ByExpert:
      for (const auto j : by_expert) sum = to_bf16(sum + terms[static_cast<std::size_t>(j)]);
      return sum;
  }
  return sum;
}

class Merging {
 public:
  explicit Merging(const Evidence& evidence) : evidence_(evidence), top_k_(evidence.layer->config().top_k) {
    const PrecisionContract& contract = *evidence.layer->contract;
    declared_ = {contract.weighted,
                 contract.combine == Combine::Bf16ByExpert ? MergeSum::Bf16ByExpert : MergeSum::Interleaved};
  }

  const Merge& declared() const { return declared_; }
  std::int64_t top_k() const { return top_k_; }

  Slots slots(std::int64_t token) const {
    Slots result;
    for (std::int64_t j = 0; j < top_k_; ++j) {
      result.weights.push_back(
          evidence_.input(Field::topk_weights)[static_cast<std::size_t>(token * top_k_ + j)].value);
      result.rows.push_back(token * top_k_ + j);
    }
    return result;
  }

  Proposal propose(std::string_view id, std::string sentence, Merge merge,
                   std::function<Slots(std::int64_t)> slots) const {
    return {id, std::move(sentence), [this_ = *this, merge, slots = std::move(slots)](const Window& window) {
              std::vector<Bf16> bits(window.size());
#pragma omp parallel for schedule(static) if (window.size() > kWorthThreads)
              for (std::size_t i = 0; i < window.rows.size(); ++i)
                this_.token(window, i, merge, slots(window.rows[i]), bits);
              return bits;
            }};
  }
  Proposal propose(std::string_view id, std::string sentence, Merge merge) const {
    return propose(id, std::move(sentence), merge,
                   [this_ = *this](std::int64_t t) { return this_.slots(t); });
  }

 private:
  void token(const Window& window, std::size_t i, const Merge& merge, const Slots& slots,
             std::vector<Bf16>& bits) const {
    const auto& values = evidence_.input(Field::hidden_states_unpermute);
    const std::int64_t first = window.rows[i] * top_k_;
    std::vector<std::int32_t> by_expert(static_cast<std::size_t>(top_k_));
    std::iota(by_expert.begin(), by_expert.end(), 0);
    std::ranges::stable_sort(by_expert, {}, [&](std::int32_t j) {
      return evidence_.layer->routing.selected[static_cast<std::size_t>(first + j)];
    });
    std::vector<float> terms(static_cast<std::size_t>(top_k_));
    for (std::size_t c = 0; c < window.columns.size(); ++c) {
      for (std::size_t j = 0; j < terms.size(); ++j) {
        float term =
            values[static_cast<std::size_t>(slots.rows[j] * evidence_.width + window.columns[c])].value;
        for (int n = merge.weight_applied ? (merge.weight_twice ? 2 : 1) : 0; n > 0; --n) {
          term *= slots.weights[j];
          if (merge.weighted == Store::Bf16) term = to_bf16(term);
        }
        terms[j] = slots.times.empty() ? term : term * static_cast<float>(slots.times[j]);
      }
      bits[i * window.columns.size() + c] = round_to_bf16(add_slots(terms, by_expert, merge.sum));
    }
  }

  const Evidence& evidence_;
  std::int64_t top_k_;
  Merge declared_{};
};

void propose_sums(const Merging& merging, std::vector<Proposal>& all) {
  const Merge declared = merging.declared();
  const auto as = [&](MergeSum sum, Store weighted) { return Merge{weighted, sum}; };
  const Store other = declared.weighted == Store::Bf16 ? Store::Unrounded : Store::Bf16;
  const char* rounding = other == Store::Bf16 ? "product_rounded" : "product_unrounded";
  const char* rounding_in_words = other == Store::Bf16
                                      ? "weight times value is rounded to bf16 before the sum"
                                      : "weight times value is not rounded to bf16 before the sum";
  const struct {
    std::string_view id, sentence;
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
    double left = 0.0, energy = 0.0;
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
  const std::int64_t tokens = evidence.rows, away = its - first;
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
  Merge twice = declared, none = declared;
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

}  // namespace

std::vector<Proposal> propose_merge(const Evidence& evidence, const ErrorPlace& place) {
  const Merging merging(evidence);
  std::vector<Proposal> all;
  propose_sums(merging, all);
  propose_wrong_weights(evidence, merging, all);
  propose_weights_of_others(evidence, place, merging, all);
  propose_wrong_slots(evidence, place, merging, all);
  return all;
}

}  // namespace assay
