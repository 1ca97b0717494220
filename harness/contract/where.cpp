#include "harness/contract/where.h"

#include <algorithm>
#include <map>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/counted_words.h"

namespace assay {
namespace {

constexpr double kEverywhere = 0.8;     // share of an expert's rows that is called all of them ...
constexpr std::int64_t kManyRows = 10;  // ... of so many, where a few may be right by luck
constexpr std::size_t kShownIndices = 4;

using Which = std::span<const std::int64_t>;

std::string ordinal_number(std::int64_t n) {
  const std::int64_t last = n % 10;
  const bool teen = n / 10 % 10 == 1;
  return fmt::format("{}{}", n, teen ? "th" : last == 1 ? "st" : last == 2 ? "nd" : last == 3 ? "rd" : "th");
}

std::string last_rows(std::int64_t count, bool last) {
  const char* end = last ? "last" : "first";
  return count == 1 ? fmt::format("the {} row", end) : fmt::format("the {} {} rows", end, count);
}

/// What places of a field are told by.
struct FieldPlaces {
  Field field;
  const Sizes& sizes;
  const Routing& routing;

  std::int64_t rows() const { return rows_of(field, sizes); }
  bool matrices() const { return row(field).rows == RowsAre::ExpertMatrix; }

  /// Where each expert's rows begin, and the end: of a field in expert order, or of experts' matrices.
  std::vector<std::int64_t> borders() const {
    if (!matrices()) return routing.offsets;
    std::vector<std::int64_t> all;
    for (std::int64_t e = 0; e <= sizes.config.num_experts; ++e)
      all.push_back(e * matrix_rows_of(field, sizes));
    return all;
  }
  std::int64_t slot_of(std::int64_t r) const {
    return row(field).rows == RowsAre::Slots ? r : routing.gather[static_cast<std::size_t>(r)];
  }
  std::int64_t expert_of_slot(std::int64_t slot) const {
    return routing.selected[static_cast<std::size_t>(slot)];
  }
};

bool most(std::int64_t count, std::int64_t of) {
  return count == of ||
         (of >= kManyRows && static_cast<double>(count) >= kEverywhere * static_cast<double>(of));
}

/// Which that belong to experts, by what they have in common: an expert, the end of every expert, a token.
std::string routed_rows(const FieldPlaces& in, Which rows) {
  const std::vector<std::int64_t> borders = in.borders();
  std::map<std::int64_t, std::vector<std::int64_t>> by_expert;
  std::int64_t busy = 0;
  for (std::size_t e = 0; e + 1 < borders.size(); ++e) {
    busy += borders[e + 1] > borders[e];
    for (const auto r : rows)
      if (borders[e] <= r && r < borders[e + 1]) by_expert[static_cast<std::int64_t>(e)].push_back(r);
  }
  const auto size = [&](std::int64_t e) {
    return borders[static_cast<std::size_t>(e) + 1] - borders[static_cast<std::size_t>(e)];
  };
  const auto at_end = [&](std::int64_t e, bool last) {
    const auto& mine = by_expert.at(e);
    const auto count = std::ssize(mine);
    return mine.back() - mine.front() + 1 == count &&
           (last ? mine.back() + 1 == borders[static_cast<std::size_t>(e) + 1]
                 : mine.front() == borders[static_cast<std::size_t>(e)]);
  };
  if (by_expert.size() == 1 && busy > 1) {
    const auto& [expert, mine] = *by_expert.begin();
    const auto count = std::ssize(mine);
    if (most(count, size(expert))) return fmt::format("for expert {}", expert);
    for (const bool last : {true, false})
      if (at_end(expert, last)) return fmt::format("in {} of expert {}", last_rows(count, last), expert);
    if (in.matrices()) {
      auto inside = mine;
      for (auto& r : inside) r -= borders[static_cast<std::size_t>(expert)];
      return fmt::format("in {} of expert {}", listed("row", "rows", inside, size(expert)), expert);
    }
    return fmt::format("in {} (expert {})", listed("row", "rows", mine, in.rows()), expert);
  }
  for (const bool last : {true, false}) {
    std::int64_t longest = 0;
    for (const auto& [expert, mine] : by_expert) longest = std::max<std::int64_t>(longest, std::ssize(mine));
    bool each = static_cast<double>(by_expert.size()) >= kEverywhere * static_cast<double>(busy) && busy > 1;
    bool shorter = false;
    for (const auto& [expert, mine] : by_expert) {
      each = each && at_end(expert, last) && std::ssize(mine) == std::min(longest, size(expert));
      shorter = shorter || size(expert) > longest;
    }
    if (each && shorter) return fmt::format("in {} of each expert", last_rows(longest, last));
  }
  bool whole = true;
  std::vector<std::int64_t> experts;
  for (const auto& [expert, mine] : by_expert) {
    whole = whole && most(std::ssize(mine), size(expert));
    experts.push_back(expert);
  }
  if (whole && std::ssize(experts) < busy) return "for " + listed("expert", "experts", experts, busy);
  if (in.matrices())
    return fmt::format("in {} of {}", counted(std::ssize(rows), "row"),
                       listed("expert", "experts", experts, busy));
  const auto token = [&](std::int64_t r) { return in.slot_of(r) / in.sizes.config.top_k; };
  if (rows.size() > 1 && std::ranges::all_of(rows, [&](auto r) { return token(r) == token(rows.front()); }))
    return fmt::format("for token {}", token(rows.front()));
  return "in " + listed("row", "rows", rows, in.rows());
}

/// Slots, or tokens, that are just those of one expert; -1 where they are of none.
std::int64_t expert_shared(const FieldPlaces& in, Which rows) {
  const bool slots = row(in.field).rows == RowsAre::Slots;
  const std::int64_t top_k = slots ? 1 : in.sizes.config.top_k;
  for (std::int64_t j = 0; j < top_k; ++j) {
    const std::int64_t expert = in.expert_of_slot(rows.front() * top_k + j);
    std::vector<std::int64_t> its;
    for (std::int64_t s = 0; s < std::ssize(in.routing.selected); ++s)
      if (in.expert_of_slot(s) == expert && (its.empty() || its.back() != s / top_k))
        its.push_back(s / top_k);
    if (std::ranges::equal(its, rows)) return expert;
  }
  return -1;
}

bool in_a_line(Which which) { return which.back() - which.front() + 1 == std::ssize(which); }

std::string slots_in_words(const FieldPlaces& in, Which rows) {
  const std::int64_t top_k = in.sizes.config.top_k;
  if (rows.size() > 1) {
    if (const auto expert = expert_shared(in, rows); expert >= 0) return fmt::format("for expert {}", expert);
    const auto choice = rows.front() % top_k;
    if (top_k > 1 && std::ssize(rows) == in.sizes.tokens &&
        std::ranges::all_of(rows, [&](auto s) { return s % top_k == choice; }))
      return fmt::format("in slot {} of each token", choice);
  }
  return "in " + listed("slot", "slots", rows, in.rows());
}

std::string tokens_in_words(const FieldPlaces& in, Which rows) {
  if (rows.size() > 1 && !in_a_line(rows))
    if (const auto expert = expert_shared(in, rows); expert >= 0)
      return fmt::format("for the tokens of expert {}", expert);
  return "for " + listed("token", "tokens", rows, in.rows());
}

std::string rows_in_words(const FieldPlaces& in, Which rows) {
  switch (row(in.field).rows) {
    case RowsAre::ExpertOrder:
    case RowsAre::ExpertMatrix: return routed_rows(in, rows);
    case RowsAre::Slots: return slots_in_words(in, rows);
    case RowsAre::Tokens: return tokens_in_words(in, rows);
    case RowsAre::Experts: break;
  }
  return "for " + listed("expert", "experts", rows, in.rows());
}

}  // namespace

std::string listed(std::string_view one, std::string_view many, Which which, std::int64_t of) {
  if (which.size() == 1) return fmt::format("{} {}", one, which.front());
  if (in_a_line(which)) return fmt::format("{} {} to {}", many, which.front(), which.back());
  const std::int64_t step = which[1] - which[0];
  bool even = which.size() > 2;
  for (std::size_t i = 1; i < which.size(); ++i) even = even && which[i] - which[i - 1] == step;
  if (even) {
    const auto every = fmt::format("every {} {}", ordinal_number(step), one);
    if (which.back() + step < of) return fmt::format("{} from {} to {}", every, which.front(), which.back());
    return which.front() == 0 ? every : fmt::format("{} from {} on", every, which.front());
  }
  if (which.size() <= kShownIndices) return fmt::format("{} {}", many, fmt::join(which, ", "));
  return fmt::format("{} of {} {}", which.size(), of, many);
}

std::string place_in_words(Field field, const Sizes& sizes, const Routing& routing, Which rows,
                           Which columns) {
  const FieldPlaces in{field, sizes, routing};
  std::string words;
  if (std::ssize(rows) < in.rows()) words = rows_in_words(in, rows);
  const std::int64_t width = width_of(field, sizes);
  if (std::ssize(columns) < width) {
    const std::string axis(axis_name(field, rank_of(field) - 1));
    const std::string one = axis == "col" ? "column" : axis;
    words += fmt::format("{}in {}", words.empty() ? "" : ", ", listed(one, one + "s", columns, width));
  }
  return words;
}

}  // namespace assay
