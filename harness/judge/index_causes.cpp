#include "harness/judge/index_causes.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/counted_words.h"
#include "harness/contract/digits.h"

namespace assay {
namespace {

constexpr std::size_t kListed = 5;
constexpr std::size_t kShownRows = 4;  // of a slot that stands in several

using Entries = std::vector<std::int64_t>;

Entries each(std::int64_t count, const std::function<std::int64_t(std::int64_t)>& entry) {
  Entries all;
  for (std::int64_t i = 0; i < count; ++i) all.push_back(entry(i));
  return all;
}

/// What a program with another convention writes.
struct Convention {
  std::string_view id;
  std::string sentence;
  Entries entries;
};

std::int64_t at(const std::vector<std::int32_t>& from, std::int64_t i) {
  return from[static_cast<std::size_t>(i)];
}

/// Slots of every expert, its slots in ascending order of `key`.
Entries sorted_slots(const Routing& right, const std::function<std::int64_t(std::int64_t)>& key) {
  Entries slots(right.gather.begin(), right.gather.end());
  std::ranges::stable_sort(slots, [&](std::int64_t a, std::int64_t b) {
    return std::pair(at(right.selected, a), key(a)) < std::pair(at(right.selected, b), key(b));
  });
  return slots;
}

Entries experts_descending(const Routing& right) {
  Entries slots(right.gather.begin(), right.gather.end());
  std::ranges::stable_sort(slots, std::greater<>(), [&](std::int64_t s) { return at(right.selected, s); });
  return slots;
}

std::vector<Convention> gather_conventions(const Sizes& sizes, const Routing& right) {
  const std::int64_t slots = std::ssize(right.gather);
  const std::int64_t top_k = sizes.config.top_k;
  const std::int64_t tokens = sizes.tokens;
  const auto by_choice = [&](std::int64_t slot) { return slot % top_k * tokens + slot / top_k; };
  Entries row_of(static_cast<std::size_t>(slots));
  for (std::int64_t r = 0; r < slots; ++r) row_of[static_cast<std::size_t>(at(right.gather, r))] = r;
  const Entries by_choice_sorted = sorted_slots(right, by_choice);
  const auto sorted = [&](std::int64_t r) { return by_choice_sorted[static_cast<std::size_t>(r)]; };
  const auto all = [&](std::string_view id, std::string sentence, auto entry) {
    return Convention{id, std::move(sentence), each(slots, entry)};
  };
  return {
      all("inverse_permutation", "the inverse permutation: every slot's row, not every row's slot",
          [&](std::int64_t s) { return row_of[static_cast<std::size_t>(s)]; }),
      all("token_numbers", "token numbers stand for slots",
          [&](std::int64_t r) { return at(right.gather, r) / top_k; }),
      all("choice_major", "slots are counted j T + t, not t K + j",
          [&](std::int64_t r) { return by_choice(at(right.gather, r)); }),
      all("choice_major", "slots are counted j T + t, not t K + j, and each expert's are sorted so",
          [&](std::int64_t r) { return by_choice(sorted(r)); }),
      all("choice_major", "each expert's slots are sorted by choice before token", sorted),
      all("token_numbers", "token numbers stand for slots, sorted by choice before token",
          [&](std::int64_t r) { return sorted(r) / top_k; }),
      all("slot_order", "slots stand in slot order, not sorted by expert", [](std::int64_t r) { return r; }),
      all("counted_from_one", "slots are counted from 1",
          [&](std::int64_t r) { return at(right.gather, r) + 1; }),
      all("next_row", "every row has the next row's slot",
          [&](std::int64_t r) { return at(right.gather, (r + 1) % slots); }),
      all("next_row", "every row has the slot of the row before",
          [&](std::int64_t r) { return at(right.gather, (r + slots - 1) % slots); }),
      all("shifted_slots", "every index is one further, the last one 0",
          [&](std::int64_t r) { return (at(right.gather, r) + 1) % slots; }),
      {"descending_slots", "each expert's slots stand in descending order",
       sorted_slots(right, [](std::int64_t slot) { return -slot; })},
      {"experts_reversed", "the experts stand in descending order", experts_descending(right)},
      all("expert_numbers", "expert numbers stand for slots",
          [&](std::int64_t r) { return at(right.selected, at(right.gather, r)); }),
  };
}

std::vector<Convention> count_conventions(const Sizes& sizes, const Routing& right) {
  const std::int64_t experts = std::ssize(right.counts);
  const std::int64_t slots = std::ssize(right.gather);
  const auto count = [&](std::int64_t e) { return at(right.counts, e); };
  const auto all = [&](std::string_view id, std::string sentence, auto entry) {
    return Convention{id, std::move(sentence), each(experts, entry)};
  };
  std::vector<Convention> conventions = {
      all("offsets_for_counts", "running offsets stand for counts: where each expert's rows end",
          [&](std::int64_t e) { return right.offsets[static_cast<std::size_t>(e) + 1]; }),
      all("offsets_for_counts", "running offsets stand for counts: where each expert's rows begin",
          [&](std::int64_t e) { return right.offsets[static_cast<std::size_t>(e)]; }),
      all("next_expert", "every count is that of the next expert",
          [&](std::int64_t e) { return count((e + 1) % experts); }),
      all("next_expert", "every count is that of the expert before",
          [&](std::int64_t e) { return count((e + experts - 1) % experts); }),
      all("equal_counts", "all experts have the same count, as if the load were even",
          [&](std::int64_t) { return slots / experts; }),
      all("first_choices", "only the tokens' first choices are counted",
          [&](std::int64_t e) {
            std::int64_t first = 0;
            for (std::int64_t s = 0; s < slots; s += sizes.config.top_k) first += at(right.selected, s) == e;
            return first;
          }),
      all("counted_from_one", "experts are counted from 1",
          [&](std::int64_t e) { return e == 0 ? 0 : count(e - 1); }),
  };
  for (std::int64_t by = 4; by <= 256; by *= 2)
    for (const bool empty_too : {false, true}) {
      const auto padded = [&](std::int64_t e) {
        const std::int64_t least = empty_too ? 1 : 0;
        return (std::max(count(e), least) + by - 1) / by * by;
      };
      const Entries rows = each(experts, padded);
      const auto what = fmt::format("multiples of {}{}", by, empty_too ? ", empty experts' too" : "");
      conventions.push_back({"padded_counts", fmt::format("counts are padded to {}", what), rows});
      Entries ends(rows.size());
      Entries starts(rows.size());
      std::partial_sum(rows.begin(), rows.end(), ends.begin());
      std::exclusive_scan(rows.begin(), rows.end(), starts.begin(), std::int64_t{0});
      conventions.push_back(
          {"offsets_for_counts",
           fmt::format("running offsets of counts padded to {} stand for counts: ends", what), ends});
      conventions.push_back(
          {"offsets_for_counts",
           fmt::format("running offsets of counts padded to {} stand for counts: beginnings", what), starts});
    }
  Entries sorted = each(experts, count);
  std::ranges::sort(sorted, std::greater<>());
  conventions.push_back({"sorted_counts", "the counts are sorted, largest first", sorted});
  std::ranges::reverse(sorted);
  conventions.push_back({"sorted_counts", "the counts are sorted, smallest first", sorted});
  return conventions;
}

struct WrongIndices {
  std::span<const std::int32_t> found;
  std::span<const std::int32_t> right;

  std::int64_t count() const {
    std::int64_t wrong = 0;
    for (std::size_t i = 0; i < found.size(); ++i) wrong += found[i] != right[i];
    return wrong;
  }
};

/// Broken permutations, and permutations of another order.
void describe_gather(const Routing& right, const WrongIndices& wrong, std::vector<Cause>& causes) {
  const std::int64_t slots = std::ssize(right.gather);
  std::map<std::int64_t, std::vector<std::int64_t>> rows;  // of each slot named
  std::int64_t out_of_range = 0;
  std::int64_t broken = 0;
  std::int64_t at_home = 0;
  std::int64_t first_outside = -1;
  for (std::int64_t r = 0; r < slots; ++r) {
    const std::int64_t slot = wrong.found[static_cast<std::size_t>(r)];
    if (slot < 0 || slot >= slots) {
      if (out_of_range++ == 0) first_outside = r;
    } else {
      rows[slot].push_back(r);
    }
  }
  const auto expert_of_row = [&](std::int64_t r) { return at(right.selected, at(right.gather, r)); };
  for (std::int64_t r = 0; r < slots; ++r) {
    const std::int64_t slot = wrong.found[static_cast<std::size_t>(r)];
    if (slot == at(right.gather, r)) continue;
    const bool outside = slot < 0 || slot >= slots;
    broken += outside || rows[slot].size() > 1;
    at_home += !outside && at(right.selected, slot) == expert_of_row(r);
  }
  const auto share = [&](std::int64_t entries) {
    return static_cast<double>(entries) / static_cast<double>(wrong.count());
  };
  const auto note = [&](std::string_view id, std::string sentence, std::int64_t entries) {
    if (share(entries) >= 0.5)
      causes.push_back({std::string(id), std::move(sentence), share(entries), entries == wrong.count()});
  };
  if (out_of_range > 0)
    note("indices_out_of_range",
         fmt::format("{} {} out of range 0 to {} (row {}: {})", grouped_digits(out_of_range),
                     out_of_range == 1 ? "index is" : "indices are", slots - 1, first_outside,
                     wrong.found[static_cast<std::size_t>(first_outside)]),
         out_of_range);
  std::int64_t several = 0;
  std::int64_t first_several = -1;
  std::int64_t never = 0;
  std::int64_t first_never = -1;
  for (std::int64_t s = 0; s < slots; ++s) {
    const auto its = rows.find(s);
    if (its == rows.end() && never++ == 0) first_never = s;
    if (its != rows.end() && its->second.size() > 1 && several++ == 0) first_several = s;
  }
  if (several > 0) {
    const auto& its = rows.at(first_several);
    const auto shown = std::span(its).first(std::min(its.size(), kShownRows));
    std::string sentence =
        fmt::format("no permutation: slot {} stands in {} rows ({}{}), slot {} in none", first_several,
                    its.size(), fmt::join(shown, ", "), its.size() > kShownRows ? ", ..." : "", first_never);
    if (several > 1 || never > 1)
      sentence += fmt::format("; {} {} in several rows, {} in none", grouped_digits(several),
                              several == 1 ? "slot" : "slots", grouped_digits(never));
    // Said however few entries it is: a list that is no permutation is broken whatever else is wrong in it.
    causes.push_back({"no_permutation", std::move(sentence), share(broken), broken == wrong.count()});
    return;
  }
  if (out_of_range > 0) return;
  if (wrong.count() == 2) {
    std::vector<std::int64_t> two;
    for (std::int64_t r = 0; r < slots; ++r)
      if (wrong.found[static_cast<std::size_t>(r)] != at(right.gather, r)) two.push_back(r);
    note("exchanged_rows", fmt::format("the slots of rows {} and {} are exchanged", two[0], two[1]), 2);
    return;
  }
  if (at_home == wrong.count())
    note("other_row_order", "each expert has its own slots, in another order", at_home);
  else
    note("slots_of_other_experts",
         fmt::format("a permutation, but {} {} that chose another expert",
                     counted(wrong.count() - at_home, "row"),
                     wrong.count() - at_home == 1 ? "has a slot" : "have slots"),
         wrong.count() - at_home);
}

/// Sums that are too large or small, entry by entry.
void describe_counts(const Routing& right, const WrongIndices& wrong, std::vector<Cause>& causes) {
  constexpr std::int64_t kFew = 4;
  const std::int64_t slots = std::ssize(right.gather);
  const std::int64_t sum = std::accumulate(wrong.found.begin(), wrong.found.end(), std::int64_t{0});
  if (wrong.count() > kFew) return;
  std::string sentence;
  for (std::size_t e = 0; e < wrong.found.size(); ++e)
    if (wrong.found[e] != wrong.right[e])
      sentence += fmt::format("{}expert {} is counted {}, {} chose it", sentence.empty() ? "" : "; ", e,
                              counted(wrong.found[e], "time"), counted(wrong.right[e], "slot"));
  if (sum != slots)
    sentence += fmt::format("; the sum is {}, not {}", grouped_digits(sum), grouped_digits(slots));
  causes.push_back({"miscounted", std::move(sentence), 1.0, true});
}

}  // namespace

std::vector<Cause> causes_of_indices(Field field, const Sizes& sizes, const Routing& right,
                                     std::span<const std::int32_t> found) {
  const bool counts = field == Field::token_counts_by_expert;
  const WrongIndices wrong{found, counts ? right.counts : right.gather};
  if (found.size() != wrong.right.size() || wrong.count() == 0) return {};
  std::vector<Cause> causes;
  for (const auto& [id, sentence, entries] :
       counts ? count_conventions(sizes, right) : gather_conventions(sizes, right)) {
    std::int64_t left = 0;
    for (std::size_t i = 0; i < found.size(); ++i) left += found[i] != entries[i];
    const double explained = 1.0 - static_cast<double>(left) / static_cast<double>(wrong.count());
    if (explained >= 0.5) causes.push_back({std::string(id), sentence, explained, left == 0});
  }
  if (found.size() > 1 && std::ranges::all_of(found, [&](auto x) { return x == found.front(); }))
    causes.insert(causes.begin(),
                  {"constant_ids", fmt::format("every entry is {}", found.front()), 1.0, true});
  if (counts)
    describe_counts(right, wrong, causes);
  else
    describe_gather(right, wrong, causes);
  std::ranges::stable_sort(causes, std::greater<>(), &Cause::explained);
  if (causes.size() > kListed) causes.resize(kListed);
  return causes;
}

}  // namespace assay
