// Where the error of a field is, in rows and columns and in words, and the sample that hypotheses are fitted
// to.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "harness/contract/where.h"
#include "reference_cpu/causes/causes.h"

namespace assay {
namespace {

constexpr std::int64_t kProductWork = std::int64_t{1}
                                      << 22;  // multiply-adds of one hypothesis about a product
constexpr std::int64_t kElementWork = std::int64_t{1} << 18;  // elements of any other hypothesis
constexpr std::int64_t kSampleColumns = 256;                  // of a product: enough rows must fit the work
constexpr double kDense = 0.25;  // share of wrong elements that makes rows and columns a place
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
  std::vector<std::int64_t> by_row(place.window.rows.size());
  std::vector<std::int64_t> by_column(place.window.columns.size());
  std::vector<std::int64_t> row_bits(by_row.size());
  std::vector<std::int64_t> column_bits(by_column.size());
  std::int64_t total = 0;
  for (std::size_t i = 0; i < evidence.out.size(); ++i) {
    const auto r = i / by_column.size();
    const auto c = i % by_column.size();
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
  place.in_words = place_in_words(evidence.field, evidence.layer->problem->sizes(), evidence.layer->routing,
                                  place.window.rows, place.window.columns);

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
  const std::int64_t tokens = evidence.layer->tokens();
  const std::int64_t top_k = evidence.layer->config().top_k;
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
