#include "harness/judge/selection_causes.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/bf16.h"

namespace assay {
namespace {

constexpr double kWorthNaming = 0.5;  // share of the wrong tokens
constexpr std::size_t kListed = 5;

using Ids = std::vector<std::int32_t>;

class SelectionSearch {
 public:
  explicit SelectionSearch(const WrongSelection& wrong)
      : wrong_(wrong),
        experts_(wrong.config.num_experts),
        top_k_(wrong.config.top_k),
        tokens_(static_cast<std::int64_t>(wrong.found.size()) / std::max<std::int64_t>(1, top_k_)) {
    for (std::int64_t t = 0; t < tokens_; ++t)
      if (!legal(logits(t), ids(t))) rejected_.push_back(t);
  }

  const std::vector<std::int64_t>& rejected() const { return rejected_; }

  std::int64_t wrong_ids() const {
    std::int64_t wrong = 0;
    for (const auto t : rejected_) {
      const Ids own = ids(t);
      const Ids order = by_rank(t);
      if (in_range(own)) {
        wrong += check(logits(t), own).rejected;
        continue;
      }
      for (std::size_t j = 0; j < own.size(); ++j) wrong += own[j] != order[j];
    }
    return wrong;
  }

  std::vector<Cause> causes() {
    if (rejected_.empty()) return {};
    counted_from_one();
    whole_tensors();
    repeats();
    smallest();
    other_orders();
    other_logits();
    ranks();
    out_of_range();
    std::ranges::stable_sort(found_, std::greater<>(), &Cause::explained);
    if (found_.size() > kListed) found_.resize(kListed);
    return found_;
  }

 private:
  Ids ids(std::int64_t t) const {
    const auto of =
        wrong_.found.subspan(static_cast<std::size_t>(t * top_k_), static_cast<std::size_t>(top_k_));
    return {of.begin(), of.end()};
  }

  std::vector<Interval> logits(std::int64_t t) const {
    const auto begin = wrong_.logits.bound.begin() + t * experts_;
    return {begin, begin + experts_};
  }

  /// Whether the rule for choices allows these ids of one token with these logits.
  bool legal(const std::vector<Interval>& logits, const Ids& ids) const {
    return in_range(ids) && check(logits, ids).rejected == 0;
  }

  bool in_range(const Ids& ids) const {
    return std::ranges::all_of(ids, [&](std::int32_t id) { return id >= 0 && id < experts_; });
  }

  Judgement check(const std::vector<Interval>& logits, const Ids& ids) const {
    LogitModel model;
    model.bound = model.probable = logits;
    return check_selection(wrong_.config, wrong_.contract, model, ids).judgement;
  }

  /// Experts by falling logit, the lowest index first among equals.
  Ids by_rank(std::int64_t t) const {
    const auto own = logits(t);
    Ids order(static_cast<std::size_t>(experts_));
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, std::greater<>(),
                             [&](std::int32_t e) { return own[static_cast<std::size_t>(e)].ref; });
    return order;
  }

  /// Notes a hypothesis with the share of wrong tokens that it gives, and which they are if not all are
  /// wrong.
  void offer(std::string_view id, std::string sentence, const std::function<bool(std::int64_t)>& gives) {
    std::vector<std::int64_t> its;
    for (const auto t : rejected_)
      if (gives(t)) its.push_back(t);
    const double share = static_cast<double>(its.size()) / static_cast<double>(rejected_.size());
    if (share < kWorthNaming) return;
    if (std::ssize(its) < tokens_) sentence += tokens_in_words(its);
    found_.push_back({std::string(id), std::move(sentence), share, its.size() == rejected_.size()});
  }

  std::string tokens_in_words(const std::vector<std::int64_t>& its) const {
    if (its.size() == 1) return fmt::format(", for token {}", its.front());
    if (its.back() - its.front() + 1 == std::ssize(its))
      return fmt::format(", for tokens {} to {}", its.front(), its.back());
    if (its.size() <= 4) return fmt::format(", for tokens {}", fmt::join(its, ", "));
    return fmt::format(", for {} of {} tokens", its.size(), tokens_);
  }

  void counted_from_one() {
    const auto shifted = [&](std::int64_t t) {
      Ids all = ids(t);
      for (auto& id : all) --id;
      return all;
    };
    // A convention holds for every token.
    for (std::int64_t t = 0; t < tokens_; ++t)
      if (!legal(logits(t), shifted(t))) return;
    const auto first = rejected_.front();
    offer("counted_from_one",
          fmt::format("experts are counted from 1 (token {}: {}, where {} is right)", first,
                      fmt::join(ids(first), ", "), fmt::join(shifted(first), ", ")),
          [](std::int64_t) { return true; });
  }

  void whole_tensors() {
    const Ids one = ids(0);
    const bool same_id = std::ranges::all_of(wrong_.found, [&](auto id) { return id == one.front(); });
    if (same_id && top_k_ > 1 && tokens_ > 1)
      offer("constant_ids", fmt::format("every id is {}", one.front()), [](std::int64_t) { return true; });
    else if (tokens_ > 1 && tokens_ * top_k_ > 2 && all_tokens([&](std::int64_t t) { return ids(t) == one; }))
      offer("constant_ids", fmt::format("every token has the experts {}", fmt::join(one, ", ")),
            [](std::int64_t) { return true; });
    if (tokens_ > 1 && top_k_ > 1) {
      const auto turned = [&](std::int64_t t) {
        Ids all;
        for (std::int64_t j = 0; j < top_k_; ++j)
          all.push_back(wrong_.found[static_cast<std::size_t>(j * tokens_ + t)]);
        return all;
      };
      if (all_tokens([&](std::int64_t t) { return legal(logits(t), turned(t)); }))
        offer("transposed_ids", "the ids lie [K, T], not [T, K]", [](std::int64_t) { return true; });
    }
  }

  bool all_tokens(const std::function<bool(std::int64_t)>& holds) const {
    for (std::int64_t t = 0; t < tokens_; ++t)
      if (!holds(t)) return false;
    return true;
  }

  void repeats() {
    const auto repeats = [&](std::int64_t t) {
      const Ids own = ids(t);
      return std::set<std::int32_t>(own.begin(), own.end()).size() < own.size();
    };
    const auto first = std::ranges::find_if(rejected_, repeats);
    if (first == rejected_.end()) return;
    const Ids own = ids(*first);
    std::int32_t twice = -1;
    for (const auto id : own)
      if (twice < 0 && std::ranges::count(own, id) > 1) twice = id;
    std::vector<std::size_t> slots;
    for (std::size_t j = 0; j < own.size(); ++j)
      if (own[j] == twice) slots.push_back(j);
    const auto how_many = std::ranges::count_if(rejected_, repeats);
    auto sentence =
        fmt::format("token {} names expert {} in slots {}", *first, twice, fmt::join(slots, ", "));
    if (how_many > 1)
      sentence = fmt::format("{} tokens name an expert twice or more ({})", how_many, sentence);
    const double share = static_cast<double>(how_many) / static_cast<double>(rejected_.size());
    if (share >= kWorthNaming)
      found_.push_back({"repeated_expert", std::move(sentence), share, share == 1.0});
  }

  void smallest() {
    const auto turned = [&](std::int64_t t) {
      auto own = logits(t);
      for (auto& l : own) l = {-l.ref, -l.high, -l.low, l.noise};
      return own;
    };
    offer("smallest_chosen",
          top_k_ == experts_
              ? "the smallest logits are taken first (all experts are chosen, in reverse order)"
              : "the smallest logits are chosen, smallest first",
          [&](std::int64_t t) { return legal(turned(t), ids(t)); });
    if (top_k_ < experts_)
      offer("smallest_chosen", "the smallest logits are chosen, the largest of them first",
            [&](std::int64_t t) {
              Ids own = ids(t);
              std::ranges::reverse(own);
              return legal(turned(t), own);
            });
  }

  /// The right set, not by falling logit.
  void other_orders() {
    const auto right_set = [&](std::int64_t t) {
      Ids sorted = ids(t);
      if (std::ranges::any_of(sorted, [&](auto id) { return id < 0 || id >= experts_; })) return false;
      const auto own = logits(t);
      std::ranges::sort(sorted);
      std::ranges::stable_sort(sorted, std::greater<>(),
                               [&](std::int32_t e) { return own[static_cast<std::size_t>(e)].ref; });
      return legal(own, sorted);
    };
    const auto ordered = [&](std::string_view how, auto is) {
      const auto before = found_.size();
      offer("ids_in_other_order", fmt::format("the right experts, {}", how),
            [&](std::int64_t t) { return right_set(t) && is(t, ids(t)); });
      return found_.size() > before && found_.back().every_bit;
    };
    if (top_k_ < 2) return;
    const bool known = (top_k_ < experts_ && ordered(
                                                 "in ascending order of their logits",
                                                 [&](std::int64_t t, Ids own) {
                                                   std::ranges::reverse(own);
                                                   return legal(logits(t), own);
                                                 })) ||
                       ordered("in the order of their numbers",
                               [](std::int64_t, const Ids& own) { return std::ranges::is_sorted(own); }) ||
                       ordered("in falling order of their numbers", [](std::int64_t, const Ids& own) {
                         return std::ranges::is_sorted(own, std::greater<>());
                       });
    if (!known) ordered("in another order", [](std::int64_t, const Ids&) { return true; });
  }

  void other_logits() {
    for (const std::int64_t away : {1, -1})
      if (tokens_ > 1)
        offer("ids_of_token",
              fmt::format("the choice is that of the token {}", away > 0 ? "after" : "before"),
              [&](std::int64_t t) { return legal(logits((t + away + tokens_) % tokens_), ids(t)); });
    if (tokens_ > 2)
      offer("ids_of_token", "the tokens are in reverse order",
            [&](std::int64_t t) { return legal(logits(tokens_ - 1 - t), ids(t)); });
    if (!wrong_.unrounded.empty())
      offer("logits_unrounded", "the choice is made from logits that are not rounded", [&](std::int64_t t) {
        const auto own = wrong_.unrounded.subspan(static_cast<std::size_t>(t * experts_),
                                                  static_cast<std::size_t>(experts_));
        return legal({own.begin(), own.end()}, ids(t));
      });
    offer("probabilities_rounded", "the choice is made from probabilities that are rounded to bf16",
          [&](std::int64_t t) { return legal(rounded_probabilities(t), ids(t)); });
    offer("by_magnitude", "the logits of largest magnitude are chosen", [&](std::int64_t t) {
      auto own = logits(t);
      for (auto& l : own) {
        const double size = std::fabs(l.ref);
        l = {size, size, size, l.noise};
      }
      return legal(own, ids(t));
    });
  }

  /// Logarithms of the softmax rounded to bf16: what is equal there is equal here.
  std::vector<Interval> rounded_probabilities(std::int64_t t) const {
    auto own = logits(t);
    double most = -INFINITY;
    double sum = 0.0;
    for (const auto& l : own) most = std::max(most, l.ref);
    for (const auto& l : own) sum += std::exp(l.ref - most);
    for (auto& l : own) {
      const double rounded = std::log(to_float(round_to_bf16(std::exp(l.ref - most) / sum)));
      l = {rounded, rounded, rounded, l.noise};
    }
    return own;
  }

  /// The same ranks in every wrong token.
  void ranks() {
    const auto of = [&](std::int64_t t) {
      const Ids order = by_rank(t);
      std::vector<std::int64_t> ranks;
      for (const auto id : ids(t)) ranks.push_back(1 + (std::ranges::find(order, id) - order.begin()));
      return ranks;
    };
    const auto first = of(rejected_.front());
    if (std::ranges::max(first) > experts_) return;
    offer("other_ranks", fmt::format("chosen are the experts of rank {}", fmt::join(first, ", ")),
          [&](std::int64_t t) { return of(t) == first; });
  }

  void out_of_range() {
    const auto beyond = [&](std::int32_t id) { return id < 0 || id >= experts_; };
    const auto first = std::ranges::find_if(wrong_.found, beyond);
    if (first == wrong_.found.end()) return;
    const auto at = first - wrong_.found.begin();
    offer("ids_out_of_range",
          fmt::format("ids are out of range 0 to {} (token {}, slot {}: {})", experts_ - 1, at / top_k_,
                      at % top_k_, *first),
          [&](std::int64_t t) { return std::ranges::any_of(ids(t), beyond); });
  }

  const WrongSelection& wrong_;
  std::int64_t experts_;
  std::int64_t top_k_;
  std::int64_t tokens_;
  std::vector<std::int64_t> rejected_;
  std::vector<Cause> found_;
};

}  // namespace

std::vector<Cause> causes_of_selection(const WrongSelection& wrong) {
  return SelectionSearch(wrong).causes();
}

WrongIds wrong_ids(const WrongSelection& wrong) {
  const SelectionSearch search(wrong);
  return {search.rejected(), search.wrong_ids()};
}

}  // namespace assay
