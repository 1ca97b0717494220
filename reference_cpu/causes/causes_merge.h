// The merge with its slots, weights and order of addition as a hypothesis has them.
#pragma once

#include <algorithm>
#include <functional>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "reference_cpu/causes/causes.h"

namespace assay {

enum class MergeSum { Interleaved, Ascending, Bf16BySlot, Bf16ByExpert, Bf16Descending };

inline float kept_as_bf16(float x) { return to_float(round_to_bf16(x)); }

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

inline float add_slots(std::span<const float> terms, std::span<const std::int32_t> by_expert, MergeSum how) {
  const std::size_t n = terms.size();
  float sum = 0.0f;
  float lanes[4] = {};
  switch (how) {
    case MergeSum::Interleaved:
      for (std::size_t j = 0; j < n; ++j) lanes[j % 4] += terms[j];
      return lanes[0] + lanes[1] + lanes[2] + lanes[3];
    case MergeSum::Ascending:
      for (std::size_t j = 0; j < n; ++j) sum += terms[j];
      return sum;
    case MergeSum::Bf16BySlot:
      for (std::size_t j = 0; j < n; ++j) sum = kept_as_bf16(sum + terms[j]);
      return sum;
    case MergeSum::Bf16Descending:
      for (std::size_t j = n; j-- > 0;) sum = kept_as_bf16(sum + terms[j]);
      return sum;
    case MergeSum::Bf16ByExpert:
      for (const auto j : by_expert) sum = kept_as_bf16(sum + terms[static_cast<std::size_t>(j)]);
      return sum;
  }
  return sum;
}

class Merging {
 public:
  explicit Merging(const Evidence& evidence) : evidence_(evidence), top_k_(evidence.layer->config().top_k) {
    const PrecisionContract& contract = *evidence.layer->contract;
    declared_ = {contract.weighted,
                 contract.combine == Combine::Fp32Sum ? MergeSum::Interleaved : MergeSum::Bf16ByExpert};
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
          if (merge.weighted == Store::Bf16) term = kept_as_bf16(term);
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

using LostSlot = std::function<bool(std::int64_t token, std::int64_t slot)>;

/// A sum over a token's slots, of which some may be lost: each slot's term, and the sum without some.
struct SumOfSlots {
  std::int64_t top_k;
  std::function<double(std::int64_t token, std::int64_t slot, std::int64_t column)> term;
  std::function<Proposal(std::string sentence, LostSlot lost)> without;
};

/// causes_slots.cpp: slots that are left out in several tokens, of the merge or of its gradient, and sums in
/// no fixed order.
void propose_lost_slots(const Evidence& evidence, const ErrorPlace& place, const SumOfSlots& sum,
                        std::vector<Proposal>& all);
void propose_any_order(const Evidence& evidence, const ErrorPlace& place, const Merging& merging,
                       std::vector<Proposal>& all);

}  // namespace assay
