#include "harness/judge/rejected_places.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "harness/contract/digits.h"
#include "harness/contract/where.h"

namespace assay {
namespace {

constexpr double kDense = 0.25;      // share of rejected elements that makes rows and columns a place
constexpr double kNearlyAll = 0.95;  // of the rejected elements, in rows and columns that have many

std::vector<std::int64_t> with_at_least(const std::vector<std::int64_t>& counts, double share) {
  const auto most = static_cast<double>(std::ranges::max(counts));
  std::vector<std::int64_t> chosen;
  for (std::size_t i = 0; i < counts.size(); ++i)
    if (counts[i] > 0 && static_cast<double>(counts[i]) >= share * most)
      chosen.push_back(static_cast<std::int64_t>(i));
  return chosen;
}

std::vector<std::int64_t> all_of(const std::vector<std::int64_t>& counts) {
  std::vector<std::int64_t> all(counts.size());
  std::iota(all.begin(), all.end(), 0);
  return all;
}

/// "for expert 3" as "expert 3".
std::string without_preposition(const std::string& words) { return words.substr(words.find(' ') + 1); }

}  // namespace

RejectedPlaces::RejectedPlaces(const CompareContext& context)
    : field_(context.field),
      sizes_(context.sizes),
      routing_(context.routing),
      by_row_(static_cast<std::size_t>(rows_of(field_, sizes_))),
      by_column_(static_cast<std::size_t>(width_of(field_, sizes_))) {}

void RejectedPlaces::add(std::int64_t index) {
  const auto width = std::ssize(by_column_);
  ++by_row_[static_cast<std::size_t>(index / width)];
  ++by_column_[static_cast<std::size_t>(index % width)];
  ++total_;
}

void RejectedPlaces::add(std::int64_t first_row, StoredSpan out, std::span<const Interval> reference) {
  for (std::size_t i = 0; i < out.size(); ++i)
    if (!accepts(out[i], reference[i]))
      add(first_row * std::ssize(by_column_) + static_cast<std::int64_t>(i));
}

std::string RejectedPlaces::dense_in_words(const std::vector<std::int64_t>& rows,
                                           const std::vector<std::int64_t>& columns) const {
  const std::string of_rows = place_in_words(field_, sizes_, *routing_, rows, all_of(by_column_));
  const std::string of_columns = place_in_words(field_, sizes_, *routing_, all_of(by_row_), columns);
  if (of_columns.empty()) return without_preposition(of_rows);
  if (of_rows.empty()) return without_preposition(of_columns);
  return fmt::format("{} of {}", without_preposition(of_columns), without_preposition(of_rows));
}

std::string RejectedPlaces::in_words() const {
  if (total_ < 2 || routing_ == nullptr) return "";
  const auto rows = with_at_least(by_row_, 0.0);
  const auto columns = with_at_least(by_column_, 0.0);
  const auto cells = [](const auto& some, const auto& others) {
    return static_cast<double>(some.size()) * static_cast<double>(others.size());
  };
  const auto total = static_cast<double>(total_);
  if (total >= kDense * cells(rows, columns)) {
    if (rows.size() == by_row_.size() && columns.size() == by_column_.size()) return "everywhere";
    return "all in " + dense_in_words(rows, columns);
  }
  // Rows or columns that have many hold nearly all.
  const auto held = [](const std::vector<std::int64_t>& counts, const std::vector<std::int64_t>& lines) {
    std::int64_t sum = 0;
    for (const auto i : lines) sum += counts[static_cast<std::size_t>(i)];
    return static_cast<double>(sum);
  };
  const auto full_rows = with_at_least(by_row_, kDense);
  const auto full_columns = with_at_least(by_column_, kDense);
  if (full_rows.size() < rows.size() && held(by_row_, full_rows) >= kNearlyAll * total &&
      total >= kDense * cells(full_rows, columns))
    return "nearly all in " + dense_in_words(full_rows, all_of(by_column_));
  if (full_columns.size() < columns.size() && held(by_column_, full_columns) >= kNearlyAll * total &&
      total >= kDense * cells(rows, full_columns))
    return "nearly all in " + dense_in_words(all_of(by_row_), full_columns);
  std::string words = fmt::format("{} scattered elements", grouped_digits(total_));
  if (2 * rows.size() < by_row_.size())
    words += ", in " + dense_in_words(rows, all_of(by_column_));
  else if (2 * columns.size() < by_column_.size())
    words += ", in " + dense_in_words(all_of(by_row_), columns);
  return words;
}

}  // namespace assay
