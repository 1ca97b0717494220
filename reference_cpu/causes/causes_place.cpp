// Where the error of a field is, in rows and columns and in words, and the sample that hypotheses are fitted
// to.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "reference_cpu/causes/causes.h"

namespace assay {
namespace {

constexpr std::int64_t kProductWork = std::int64_t{1}
                                      << 22;  // multiply-adds of one hypothesis about a product
constexpr std::int64_t kElementWork = std::int64_t{1} << 18;  // elements of any other hypothesis
constexpr std::int64_t kSampleColumns = 256;                  // of a product: enough rows must fit the work
constexpr double kDense = 0.25;      // share of wrong elements that makes rows and columns a place
constexpr double kEverywhere = 0.8;  // share of an expert's rows that is called all of them
constexpr double kByLuck =
    0.01;  // rows expected without an error by luck, below which rows without one are spared by intent

std::vector<std::int64_t> all_of(std::int64_t count) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

/// Indices whose count is at least `share` of the largest.
std::vector<std::int64_t> above(const std::vector<std::int64_t>& counts, double share) {
  const auto most = static_cast<double>(*std::ranges::max_element(counts));
  std::vector<std::int64_t> chosen;
  for (std::size_t i = 0; i < counts.size(); ++i)
    if (counts[i] > 0 && static_cast<double>(counts[i]) >= share * most)
      chosen.push_back(static_cast<std::int64_t>(i));
  return chosen;
}

std::string listed(std::string_view one, std::string_view many, const std::vector<std::int64_t>& which,
                   std::int64_t of) {
  const auto count = static_cast<std::int64_t>(which.size());
  if (count == 1) return fmt::format("{} {}", one, which.front());
  if (which.back() - which.front() + 1 == count)
    return fmt::format("{} {} to {}", many, which.front(), which.back());
  if (count <= 4) return fmt::format("{} {}", many, fmt::join(which, ", "));
  return fmt::format("{} of {} {}", count, of, many);
}

std::string last_rows(std::int64_t count, bool last) {
  const char* end = last ? "last" : "first";
  return count == 1 ? fmt::format("the {} row", end) : fmt::format("the {} {} rows", end, count);
}

/// Where each expert's rows begin, and the end: of a field in expert order, or of experts' matrices.
std::vector<std::int64_t> borders_of_experts(const Evidence& evidence) {
  if (row(evidence.field).rows == RowsAre::ExpertOrder) return evidence.layer->routing.offsets;
  const Sizes sizes = evidence.layer->problem->sizes();
  std::vector<std::int64_t> borders;
  for (std::int64_t e = 0; e <= sizes.config.num_experts; ++e)
    borders.push_back(e * matrix_rows_of(evidence.field, sizes));
  return borders;
}

/// Rows that belong to experts, by what they have in common: an expert, the end of every expert, a token.
std::string routed_rows(const Evidence& evidence, const std::vector<std::int64_t>& rows) {
  const std::vector<std::int64_t> offsets = borders_of_experts(evidence);
  const bool matrices = row(evidence.field).rows == RowsAre::ExpertMatrix;
  std::map<std::int64_t, std::vector<std::int64_t>> by_expert;
  std::int64_t busy = 0;
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
    busy += offsets[e + 1] > offsets[e];
    for (const auto r : rows)
      if (offsets[e] <= r && r < offsets[e + 1]) by_expert[static_cast<std::int64_t>(e)].push_back(r);
  }
  const auto size = [&](std::int64_t e) {
    return offsets[static_cast<std::size_t>(e) + 1] - offsets[static_cast<std::size_t>(e)];
  };
  const auto at_end = [&](std::int64_t e, bool last) {
    const auto& mine = by_expert.at(e);
    const auto count = static_cast<std::int64_t>(mine.size());
    return mine.back() - mine.front() + 1 == count &&
           (last ? mine.back() + 1 == offsets[static_cast<std::size_t>(e) + 1]
                 : mine.front() == offsets[static_cast<std::size_t>(e)]);
  };
  if (by_expert.size() == 1 && busy > 1) {
    const auto& [expert, mine] = *by_expert.begin();
    const auto count = static_cast<std::int64_t>(mine.size());
    if (static_cast<double>(count) >= kEverywhere * static_cast<double>(size(expert)))
      return fmt::format("for expert {}", expert);
    for (const bool last : {true, false})
      if (at_end(expert, last)) return fmt::format("in {} of expert {}", last_rows(count, last), expert);
    if (matrices) {
      auto inside = mine;
      for (auto& r : inside) r -= offsets[static_cast<std::size_t>(expert)];
      return fmt::format("in {} of expert {}", listed("row", "rows", inside, size(expert)), expert);
    }
    return fmt::format("in {} (expert {})", listed("row", "rows", mine, evidence.rows), expert);
  }
  for (const bool last : {true, false}) {
    std::int64_t most = 0;
    for (const auto& [expert, mine] : by_expert)
      most = std::max(most, static_cast<std::int64_t>(mine.size()));
    bool each = static_cast<double>(by_expert.size()) >= kEverywhere * static_cast<double>(busy) && busy > 1;
    bool shorter = false;
    for (const auto& [expert, mine] : by_expert) {
      each = each && at_end(expert, last) &&
             static_cast<std::int64_t>(mine.size()) == std::min(most, size(expert));
      shorter = shorter || size(expert) > most;
    }
    if (each && shorter) return fmt::format("in {} of each expert", last_rows(most, last));
  }
  bool whole = true;
  std::vector<std::int64_t> experts;
  for (const auto& [expert, mine] : by_expert) {
    whole = whole && static_cast<double>(mine.size()) >= kEverywhere * static_cast<double>(size(expert));
    experts.push_back(expert);
  }
  if (whole && static_cast<std::int64_t>(experts.size()) < busy)
    return "for " + listed("expert", "experts", experts, busy);
  if (matrices)
    return fmt::format("in {} rows of {}", rows.size(), listed("expert", "experts", experts, busy));
  const auto top_k = evidence.layer->config().top_k;
  const auto token = [&](std::int64_t r) {
    return evidence.layer->routing.gather[static_cast<std::size_t>(r)] / top_k;
  };
  if (std::ranges::all_of(rows, [&](std::int64_t r) { return token(r) == token(rows.front()); }) &&
      rows.size() > 1)
    return fmt::format("for token {}", token(rows.front()));
  return "in " + listed("row", "rows", rows, evidence.rows);
}

std::string in_words(const Evidence& evidence, const Window& window) {
  std::string words;
  if (static_cast<std::int64_t>(window.rows.size()) < evidence.rows) {
    switch (row(evidence.field).rows) {
      case RowsAre::ExpertOrder:
      case RowsAre::ExpertMatrix: words = routed_rows(evidence, window.rows); break;
      case RowsAre::Slots: words = "in " + listed("slot", "slots", window.rows, evidence.rows); break;
      case RowsAre::Tokens: words = "for " + listed("token", "tokens", window.rows, evidence.rows); break;
      case RowsAre::Experts: words = "for " + listed("expert", "experts", window.rows, evidence.rows); break;
    }
  }
  if (static_cast<std::int64_t>(window.columns.size()) < evidence.width)
    words += fmt::format("{}in {}", words.empty() ? "" : ", ",
                         listed("column", "columns", window.columns, evidence.width));
  return words;
}

std::int64_t terms_of(const Evidence& evidence) {
  const auto product = product_of(evidence.field);
  return product ? extent(row(*product).summed, evidence.layer->problem->sizes()) : 0;
}

/// Half of them those that differ most, the other half evenly spread: the fit sees the error, the score also
/// the rest.
std::vector<std::int64_t> thinned(const std::vector<std::int64_t>& from,
                                  const std::vector<std::int64_t>& differing, std::int64_t count) {
  if (static_cast<std::int64_t>(from.size()) <= count) return from;
  std::vector<std::int64_t> ranked = from;
  std::ranges::stable_sort(ranked, std::greater<>(),
                           [&](std::int64_t i) { return differing[static_cast<std::size_t>(i)]; });
  ranked.resize(static_cast<std::size_t>((count + 1) / 2));
  for (std::int64_t i = 0; i < count / 2; ++i)
    ranked.push_back(from[static_cast<std::size_t>(i) * from.size() /
                          static_cast<std::size_t>(std::max<std::int64_t>(1, count / 2))]);
  std::ranges::sort(ranked);
  const auto repeated = std::ranges::unique(ranked);
  ranked.erase(repeated.begin(), repeated.end());
  return ranked;
}

}  // namespace

ErrorPlace find_place(const Evidence& evidence) {
  ErrorPlace place{{all_of(evidence.rows), all_of(evidence.width)}, {}, ""};
  std::vector<std::int64_t> by_row(place.window.rows.size()), by_column(place.window.columns.size());
  std::vector<std::int64_t> row_bits(by_row.size()), column_bits(by_column.size());
  std::int64_t total = 0;
  for (std::size_t i = 0; i < evidence.out.size(); ++i) {
    const auto r = i / by_column.size(), c = i % by_column.size();
    const bool differs = evidence.out[i] != evidence.reference[i];
    row_bits[r] += differs;
    column_bits[c] += differs;
    if (!evidence.significant[i]) continue;
    ++by_row[r];
    ++by_column[c];
    ++total;
  }
  // First every row and column with an error; if that is mostly empty, only those with many.
  for (const double share : {0.0, 0.25}) {
    if (total == 0) break;
    const Window tried{above(by_row, share), above(by_column, share)};
    std::int64_t inside = 0;
    for (const auto r : tried.rows)
      for (const auto c : tried.columns)
        inside += evidence.significant[static_cast<std::size_t>(r * evidence.width + c)];
    if (static_cast<double>(inside) < kDense * static_cast<double>(tried.size()) ||
        static_cast<double>(inside) < 0.95 * static_cast<double>(total))
      continue;
    // How many of the other rows (columns) would be spared by luck, if errors came everywhere as often as
    // here.
    const double right = 1.0 - static_cast<double>(inside) / static_cast<double>(tried.size());
    const auto lucky = [&](std::int64_t lines, std::size_t length) {
      return static_cast<double>(lines) * std::pow(right, static_cast<double>(length));
    };
    if (lucky(evidence.rows, tried.columns.size()) < kByLuck ||
        static_cast<double>(tried.rows.size()) < 0.5 * static_cast<double>(evidence.rows))
      place.window.rows = tried.rows;
    if (lucky(evidence.width, tried.rows.size()) < kByLuck ||
        static_cast<double>(tried.columns.size()) < 0.5 * static_cast<double>(evidence.width))
      place.window.columns = tried.columns;
    break;
  }
  place.in_words = in_words(evidence, place.window);

  const std::int64_t terms = terms_of(evidence);
  place.sample.columns =
      terms > 0 ? thinned(place.window.columns, column_bits, kSampleColumns) : place.window.columns;
  const std::int64_t per_row = std::max<std::int64_t>(
      1, static_cast<std::int64_t>(place.sample.columns.size()) * std::max<std::int64_t>(1, terms));
  place.sample.rows = thinned(place.window.rows, row_bits,
                              std::max<std::int64_t>(8, (terms > 0 ? kProductWork : kElementWork) / per_row));
  return place;
}

std::vector<std::int64_t> tokens_to_try(const Evidence& evidence, std::int64_t most) {
  const std::int64_t tokens = evidence.layer->tokens(), top_k = evidence.layer->config().top_k;
  std::vector<std::int64_t> wrong(static_cast<std::size_t>(tokens));
  const auto token_of = [&](std::size_t r) -> std::size_t {
    const auto slot = row(evidence.field).rows == RowsAre::Slots
                          ? r
                          : static_cast<std::size_t>(evidence.layer->routing.gather[r]);
    return slot / static_cast<std::size_t>(top_k);
  };
  const RowsAre kind = row(evidence.field).rows;
  const bool by_expert = kind == RowsAre::Experts || kind == RowsAre::ExpertMatrix;  // sums over all tokens
  for (std::size_t i = 0; i < evidence.significant.size() && !by_expert; ++i) {
    const auto r = i / static_cast<std::size_t>(evidence.width);
    wrong[kind == RowsAre::Tokens ? r : token_of(r)] += evidence.significant[i];
  }
  return thinned(all_of(tokens), wrong, most);
}

}  // namespace assay
