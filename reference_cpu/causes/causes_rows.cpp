// What can be seen without computing anything again: zeros, unwritten values, flipped bits, rows and columns
// that moved.
#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <unordered_map>

#include <fmt/format.h>

#include "harness/contract/where.h"
#include "reference_cpu/causes/causes.h"
#include "reference_cpu/causes/hypotheses.h"

namespace assay {
namespace {

constexpr std::int64_t kFewElements = 8;  // at most so many flipped bits are a flip, not noise
constexpr std::size_t kSoughtRows = 256;  // wrong rows whose origin is looked for
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
  if (same && !zero && !nan && !limited && window.size() >= static_cast<std::size_t>(kFewElements))
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

bool is_nan_value(Stored x) { return is_nan(x); }

std::uint64_t hash_row(StoredSpan row) {
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (std::size_t i = 0; i < row.size(); ++i)
    hash = (hash ^ (ordinal(row[i]) == 0 ? 0u : row[i].bits())) * 0x100000001b3u;
  return hash;
}

/// Wrong rows that hold, bit for bit, what other rows should.
void propose_moved_rows(const Evidence& evidence, const ErrorPlace& place, std::vector<Proposal>& all) {
  const auto& rows = place.window.rows;
  if (evidence.width < 2 || rows.size() > kSoughtRows * 64) return;
  std::unordered_map<std::uint64_t, std::int64_t> home;
  const auto of = [&](StoredSpan bits, std::int64_t r) {
    return bits.subspan(index(evidence, r, 0), static_cast<std::size_t>(evidence.width));
  };
  for (std::int64_t r = evidence.rows; r-- > 0;) home[hash_row(of(evidence.reference, r))] = r;
  // Legal orders of summation change a few bits of a row: the nearest row counts as well, for as many rows as
  // time allows.
  const auto nearest = [&](std::int64_t r) -> std::int64_t {
    const auto out = of(evidence.out, r);
    std::int64_t best = -1;
    double least = 0.0;
    for (std::size_t c = 0; c < out.size(); ++c) least += static_cast<double>(out.value(c)) * out.value(c);
    least *= 0x1p-12;  // a few ulps of difference in every element, no more
    for (std::int64_t other = std::max<std::int64_t>(0, r - 2048); other < std::min(evidence.rows, r + 2048);
         ++other) {
      const auto reference = of(evidence.reference, other);
      double distance = 0.0;
      for (std::size_t c = 0; c < out.size() && distance < least; ++c) {
        const double d = static_cast<double>(to_float(out[c])) - to_float(reference[c]);
        distance += d * d;
      }
      if (!(distance < least)) continue;
      least = distance;
      best = other;
    }
    return best;
  };
  std::map<std::int64_t, std::int64_t> origin;
  std::vector<std::int64_t> zero;
  std::vector<std::int64_t> nan;
  std::size_t sought = 0;
  for (const auto r : rows) {
    const auto own = of(evidence.out, r);
    const auto all_of = [](StoredSpan row, auto is) {
      for (std::size_t c = 0; c < row.size(); ++c)
        if (!is(row[c])) return false;
      return true;
    };
    const auto is_zero = [](Stored x) { return ordinal(x) == 0; };
    if (!all_of(of(evidence.reference, r), is_zero) && all_of(own, is_zero)) {
      zero.push_back(r);
      continue;
    }
    if (all_of(own, is_nan_value)) {
      nan.push_back(r);
      continue;
    }
    const auto found = home.find(hash_row(of(evidence.out, r)));
    std::int64_t from = found == home.end() ? -1 : found->second;
    if (from < 0 && sought++ < kSoughtRows) from = nearest(r);
    if (from >= 0 && from != r) origin[r] = from;
  }
  // The same token under another expert's weights is another expert, not another row.
  if ((fields_of(evidence.field) & hypothesis_fields::kWeightProducts) != 0 &&
      row(evidence.field).rows == RowsAre::ExpertOrder) {
    const auto token = [&](std::int64_t r) {
      return evidence.layer->routing.gather[static_cast<std::size_t>(r)] / evidence.layer->config().top_k;
    };
    const auto away = [](const auto& move) { return move.second - move.first; };
    const bool one_offset =
        std::ranges::all_of(origin, [&](const auto& move) { return away(move) == away(*origin.begin()); });
    // Among rows that all moved equally far, some belong to one token by chance.
    const auto same = [&](const auto& move) { return token(move.first) == token(move.second); };
    if (!one_offset || std::ranges::all_of(origin, same)) std::erase_if(origin, same);
  }
  if (origin.empty() || (origin.size() + zero.size() + nan.size()) * 2 < rows.size()) return;
  const auto [first, its] = *origin.begin();
  const bool offset =
      std::ranges::all_of(origin, [&](const auto& move) { return move.second - move.first == its - first; });
  const auto word = row_word(evidence.field);
  std::string sentence;
  if (origin.size() == 1)
    sentence = fmt::format("{} {} holds the result of {} {}", word, row_number(evidence, first), word,
                           row_number(evidence, its));
  else if (origin.size() == 2 && origin.contains(its) && origin.at(its) == first)
    sentence = fmt::format("{}s {} and {} are exchanged", word, row_number(evidence, first),
                           row_number(evidence, its));
  else if (offset)
    sentence = fmt::format("{} {}s hold the result of the {} {} {}", origin.size(), word, word,
                           std::abs(its - first), its > first ? "further on" : "before");
  else
    sentence = fmt::format("{} {}s hold the results of others ({} {} that of {} {})", origin.size(), word,
                           word, row_number(evidence, first), word, row_number(evidence, its));
  std::vector<std::int64_t> to;
  std::vector<std::int64_t> from;
  for (const auto& [r, other] : origin) to.push_back(r), from.push_back(other);
  std::ranges::sort(from);
  const bool each_once = std::ranges::adjacent_find(from) == from.end();
  if (offset && each_once && origin.size() > 1 && !zero.empty() && std::ranges::equal(from, zero))
    sentence = fmt::format("{} hold those of {}, which are zero", rows_listed(evidence, to),
                           rows_listed(evidence, from));
  else if (!zero.empty())
    sentence += fmt::format(", and {} {} zero", rows_listed(evidence, zero), zero.size() == 1 ? "is" : "are");
  if (!nan.empty())
    sentence += fmt::format(", and {} {} NaN", rows_listed(evidence, nan), nan.size() == 1 ? "is" : "are");
  const bool weights = evidence.field == Field::topk_weights;
  all.push_back({weights ? "weights_of_token" : "moved_rows", std::move(sentence),
                 by_element([&evidence, origin, zero, nan](std::int64_t r, std::int64_t c) {
                   if (std::ranges::binary_search(zero, r)) return Stored();
                   if (std::ranges::binary_search(nan, r)) return evidence.out[index(evidence, r, c)];
                   const auto move = origin.find(r);
                   return evidence.reference[index(evidence, move == origin.end() ? r : move->second, c)];
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
  for (std::size_t i = 0; i < evidence.out.size(); ++i) {
    if (!evidence.significant[i]) continue;
    ++wrong;
    zero += ordinal(evidence.out[i]) == 0;
    nan += is_nan(evidence.out[i]);
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
  propose_bit_flips(evidence, all);
  return all;
}

std::vector<Proposal> propose_observations(const Evidence& evidence, const ErrorPlace& place) {
  std::vector<Proposal> all;
  propose_constant(evidence, place, all);
  propose_moved_rows(evidence, place, all);
  propose_shifts(evidence, all);
  return all;
}

}  // namespace assay
