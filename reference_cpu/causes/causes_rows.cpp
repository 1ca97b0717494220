// What can be seen without computing anything again: zeros, unwritten values, flipped bits, columns that
// moved (causes_moved.cpp: rows).
#include <algorithm>
#include <bit>
#include <cmath>

#include <fmt/format.h>

#include "harness/contract/where.h"
#include "reference_cpu/causes/causes.h"

namespace assay {
namespace {

constexpr std::int64_t kFewElements = 8;  // at most so many flipped bits are a flip, not noise
constexpr std::int64_t kShifts[] = {1, 2, 4, 8, 16, 32, 64, 128};

/// All of the place holds zeros, or NaN, or one value.
void propose_constant(const Evidence& evidence, const ErrorPlace& place, std::vector<Proposal>& all) {
  const auto& window = place.window;
  if (window.size() == 0) return;
  const Stored first = evidence.out[index(evidence, window.rows.front(), window.columns.front())];
  bool zero = true;
  bool nan = true;
  bool same = true;
  bool limited = true;
  for (const auto r : window.rows)
    for (const auto c : window.columns) {
      const Stored x = evidence.out[index(evidence, r, c)];
      zero = zero && ordinal(x) == 0;
      nan = nan && is_nan(x);
      same = same && x == first;
      const float expected = std::fabs(to_float(evidence.reference[index(evidence, r, c)]));
      limited = limited && !(expected < std::fabs(to_float(first)));
    }
  if (zero) all.push_back({"zeros", "results are zero", by_element([](auto, auto) { return Stored(); })});
  if (nan)
    all.push_back({"not_written", "results are NaN", by_element([first](auto, auto) { return first; })});
  const bool infinite = same && std::isinf(to_float(first));
  if (infinite)
    all.push_back({"not_written", fmt::format("results are {}", to_float(first)),
                   by_element([first](auto, auto) { return first; })});
  if (same && !zero && !nan && !infinite && !limited &&
      window.size() >= static_cast<std::size_t>(kFewElements))
    all.push_back({"not_written",
                   fmt::format("all results are {} (bits {:#0{}x}), as if never written", to_float(first),
                               first.bits(), first.dtype == DType::Float32 ? 10 : 6),
                   by_element([first](auto, auto) { return first; })});
}

void propose_bit_flips(const Evidence& evidence, std::vector<Proposal>& all) {
  std::vector<std::size_t> flipped;
  int bit = -1;
  bool same_bit = true;
  for (std::size_t i = 0; i < evidence.out.size(); ++i) {
    const auto differs = evidence.out[i].bits() ^ evidence.reference[i].bits();
    if (differs == 0 || !evidence.significant[i]) continue;
    if (!std::has_single_bit(differs) || static_cast<std::int64_t>(flipped.size()) == kFewElements) return;
    const int which = std::countr_zero(differs);
    same_bit = same_bit && (flipped.empty() || which == bit);
    bit = which;
    flipped.push_back(i);
  }
  if (flipped.empty()) return;
  const auto width = static_cast<std::size_t>(evidence.width);
  auto sentence = fmt::format("one bit each of {} elements is flipped", flipped.size());
  if (same_bit) sentence = fmt::format("bit {} of {} elements is flipped", bit, flipped.size());
  if (flipped.size() == 1)
    sentence =
        fmt::format("bit {} of one element is flipped (row {}, column {})", bit,
                    row_number(evidence, static_cast<std::int64_t>(flipped[0] / width)), flipped[0] % width);
  all.push_back({"bit_flip", std::move(sentence), by_element([&evidence](std::int64_t r, std::int64_t c) {
                   return evidence.out[index(evidence, r, c)];
                 }),
                 true});
}

void propose_shifts(const Evidence& evidence, std::vector<Proposal>& all) {
  for (const auto size : kShifts)
    for (const auto shift : {size, -size}) {
      if (size >= evidence.width) continue;
      all.push_back(
          {"shifted_columns",
           fmt::format("columns are shifted by {} to the {}", size, shift > 0 ? "right" : "left"),
           by_element([&evidence, shift](std::int64_t r, std::int64_t c) {
             const std::int64_t from = c - shift;
             return evidence.reference[index(evidence, r, from < 0 || from >= evidence.width ? c : from)];
           })});
    }
}

}  // namespace

std::string_view row_word(Field field) {
  switch (row(field).rows) {
    case RowsAre::Tokens: return "token";
    case RowsAre::Slots: return "slot";
    case RowsAre::Experts: return "expert";
    case RowsAre::ExpertOrder:
    case RowsAre::ExpertMatrix: break;
  }
  return "row";
}

/// "7", or "2 of expert 1" where rows are an expert's.
std::string row_number(const Evidence& evidence, std::int64_t r) {
  if (row(evidence.field).rows != RowsAre::ExpertMatrix) return fmt::format("{}", r);
  const std::int64_t matrix = matrix_rows_of(evidence.field, evidence.layer->problem->sizes());
  return fmt::format("{} of expert {}", r % matrix, r / matrix);
}

std::string rows_listed(const Evidence& evidence, const std::vector<std::int64_t>& rows) {
  if (rows.size() == 1)
    return fmt::format("{} {}", row_word(evidence.field), row_number(evidence, rows.front()));
  return listed(row_word(evidence.field), fmt::format("{}s", row_word(evidence.field)), rows, evidence.rows);
}

std::vector<Proposal> propose_scattered(const Evidence& evidence, const ErrorPlace&) {
  std::vector<Proposal> all;
  std::int64_t wrong = 0;
  std::int64_t zero = 0;
  std::int64_t nan = 0;
  std::int64_t infinite = 0;
  for (std::size_t i = 0; i < evidence.out.size(); ++i) {
    if (!evidence.significant[i]) continue;
    ++wrong;
    zero += ordinal(evidence.out[i]) == 0;
    nan += is_nan(evidence.out[i]);
    infinite += std::isinf(to_float(evidence.out[i]));
  }
  const auto where_seen = [&evidence](auto is) {
    return by_element([&evidence, is](std::int64_t r, std::int64_t c) {
      const auto at = index(evidence, r, c);
      return is(evidence.out[at]) ? evidence.out[at] : evidence.reference[at];
    });
  };
  const auto elements = [](std::int64_t count) {
    return count == 1 ? std::string("one element is") : fmt::format("{} elements are", count);
  };
  if (zero > 0 && zero == wrong)
    all.push_back(
        {"zeros", elements(zero) + " zero", where_seen([](Stored x) { return ordinal(x) == 0; }), true});
  if (nan > 0 && nan == wrong)
    all.push_back(
        {"not_written", elements(nan) + " NaN", where_seen([](Stored x) { return is_nan(x); }), true});
  if (infinite > 0 && infinite == wrong)
    all.push_back({"not_written", elements(infinite) + " infinite",
                   where_seen([](Stored x) { return std::isinf(to_float(x)); }), true});
  propose_bit_flips(evidence, all);
  return all;
}

std::vector<Proposal> propose_observations(const Evidence& evidence, const ErrorPlace& place) {
  std::vector<Proposal> all;
  propose_constant(evidence, place, all);
  propose_shifts(evidence, all);
  return all;
}

}  // namespace assay
