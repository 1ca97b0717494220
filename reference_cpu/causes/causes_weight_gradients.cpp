// Hypotheses about gradients of weights: rows missing, added twice or taken from neighbours as the elements
// say (row_sums.h), other rows of the right operand, exchanged halves, another order of the sum.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include <fmt/format.h>

#include "harness/contract/counted_words.h"
#include "harness/contract/layer.h"
#include "reference_cpu/causes/row_sums.h"

namespace assay {
namespace {

using SharedSums = std::shared_ptr<const RowSums>;

constexpr std::size_t kFittedMatrices = 8;
constexpr double kNearWhole = 0.25;  // a share so near to 1 or -1 is taken for it

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
bool nearly(double share, double whole) { return std::fabs(share - whole) < kNearWhole; }

Proposal proposal(std::string_view id, std::string sentence, const SharedSums& sums, TermsOfMatrix terms,
                  bool bf16_every_term = false) {
  return {id, std::move(sentence), [sums, terms = std::move(terms), bf16_every_term](const Window& window) {
            return sums->bits(window, terms, bf16_every_term);
          }};
}

/// Positions among a matrix's own rows, [begin, end); the end is open where it is the last row of each.
struct Positions {
  std::int64_t from_end = 0;  // so many of the last rows; else:
  std::int64_t begin = 0;
  std::int64_t end = 0;

  bool has(std::int64_t position, std::int64_t rows) const {
    return from_end > 0 ? position + from_end >= rows : begin <= position && position < end;
  }
};

/// Where all fitted matrices have the share `whole`, as one rule for all matrices: the last n rows, or the
/// same positions; nothing where there is no such rule.
std::optional<Positions> rule_of(const std::vector<FittedRows>& fitted, double whole) {
  Positions last;
  Positions stretch{0, INT64_MAX, 0};
  for (const FittedRows& one : fitted) {
    const auto rows = std::ssize(one.own);
    std::int64_t run = 0;
    while (run < rows && nearly(one.own[index(rows - 1 - run)], whole)) ++run;
    last.from_end = std::max(last.from_end, run);
    for (std::int64_t p = 0; p < rows; ++p)
      if (nearly(one.own[index(p)], whole)) {
        stretch.begin = std::min(stretch.begin, p);
        stretch.end = std::max(stretch.end, p + 1);
      }
  }
  const auto holds = [&](const Positions& rule) {
    return std::ranges::all_of(fitted, [&](const FittedRows& one) {
      for (std::int64_t p = 0; p < std::ssize(one.own); ++p)
        if (rule.has(p, std::ssize(one.own)) != nearly(one.own[index(p)], whole)) return false;
      return true;
    });
  };
  if (last.from_end > 0 && holds(last)) return last;
  if (stretch.end > 0 && holds(stretch)) return stretch;
  return std::nullopt;
}

std::string words(const Positions& rule) {
  if (rule.from_end == 1) return "the last row of the sum is";
  if (rule.from_end > 0) return fmt::format("the last {} rows of the sum are", rule.from_end);
  if (rule.end - rule.begin == 1) return fmt::format("row {} of the sum is", rule.begin);
  return fmt::format("rows {} to {} of the sum are", rule.begin, rule.end - 1);
}

/// Rows that are missing, or added twice, in every matrix or as each was fitted.
void propose_own_rows(const SharedSums& sums, const std::vector<FittedRows>& fitted, double whole,
                      std::vector<Proposal>& all) {
  const auto factor = static_cast<float>(1.0 + whole);
  const std::string_view id = whole < 0.0 ? "k_dropped" : "k_doubled";
  const std::string_view done = whole < 0.0 ? "missing" : "added twice";
  std::int64_t count = 0;
  std::int64_t all_rows = 0;
  for (const FittedRows& one : fitted) {
    count += std::ranges::count_if(one.own, [&](double share) { return nearly(share, whole); });
    all_rows += std::ssize(one.own);
  }
  if (count == 0 || count == all_rows) return;  // all of them: the sum itself is lost or doubled
  if (const auto rule = rule_of(fitted, whole)) {
    all.push_back(proposal(id, fmt::format("{} {}", words(*rule), done), sums,
                           [sums, rule = *rule, factor](std::int64_t matrix) {
                             RowTerms terms = sums->own(matrix);
                             const auto rows = std::ssize(terms);
                             for (std::int64_t p = 0; p < rows; ++p)
                               if (rule.has(p, rows)) terms[index(p)].factor = factor;
                             return terms;
                           }));
    return;
  }
  std::map<std::int64_t, std::vector<double>> shares;
  for (const FittedRows& one : fitted) shares[one.matrix] = one.own;
  all.push_back(proposal(
      id, fmt::format("{} of the sums {} {}", counted(count, "row"), count == 1 ? "is" : "are", done), sums,
      [sums, shares, whole, factor](std::int64_t matrix) {
        RowTerms terms = sums->own(matrix);
        const auto found = shares.find(matrix);
        for (std::size_t p = 0; found != shares.end() && p < terms.size(); ++p)
          if (nearly(found->second[p], whole)) terms[p].factor = factor;
        return terms;
      }));
}

/// How many of the nearest neighbours are added, in all fitted matrices that have so many.
std::int64_t added(const std::vector<FittedRows>& fitted, std::vector<double> FittedRows::* side) {
  std::int64_t most = 0;
  for (const FittedRows& one : fitted) {
    std::int64_t run = 0;
    while (run < std::ssize(one.*side) && nearly((one.*side)[index(run)], 1.0)) ++run;
    most = std::max(most, run);
  }
  return most;
}

/// Rows of the experts beside: added, or in the place of as many of the sum's own at its other end.
void propose_neighbours(const SharedSums& sums, const std::vector<FittedRows>& fitted,
                        std::vector<Proposal>& all) {
  const std::int64_t after = added(fitted, &FittedRows::after);
  const std::int64_t before = added(fitted, &FittedRows::before);
  const auto terms_with = [&](std::int64_t skipped_first, std::int64_t skipped_last) {
    return [sums, after, before, skipped_first, skipped_last](std::int64_t matrix) {
      RowTerms terms;
      for (std::int64_t n = before; n > 0; --n)
        if (const auto term = sums->neighbour(matrix, -n)) terms.push_back(*term);
      const RowTerms own = sums->own(matrix);
      const auto first = std::min(skipped_first, std::ssize(own));
      const auto last = std::max(first, std::ssize(own) - skipped_last);
      terms.insert(terms.end(), own.begin() + first, own.begin() + last);
      const bool whole = skipped_first == 0 || !own.empty();  // an empty sum that is moved stays empty
      for (std::int64_t n = 0; n < after && whole; ++n)
        if (const auto term = sums->neighbour(matrix, n)) terms.push_back(*term);
      return terms;
    };
  };
  const auto rows = [](std::int64_t n) {
    return n == 1 ? std::string("one row") : fmt::format("{} rows", n);
  };
  if (after > 0 && before == 0) {
    all.push_back(proposal("rows_of_neighbour",
                           after == 1 ? "the next expert's first row is added"
                                      : fmt::format("the next expert's first {} rows are added", after),
                           sums, terms_with(0, 0)));
    all.push_back(proposal("rows_of_neighbour", fmt::format("the sum begins and ends {} late", rows(after)),
                           sums, terms_with(after, 0)));
  }
  if (before > 0 && after == 0) {
    all.push_back(proposal("rows_of_neighbour",
                           before == 1
                               ? "the last row of the expert before is added"
                               : fmt::format("the last {} rows of the expert before are added", before),
                           sums, terms_with(0, 0)));
    all.push_back(proposal("rows_of_neighbour", fmt::format("the sum begins and ends {} early", rows(before)),
                           sums, terms_with(0, before)));
  }
}

/// Rows whose right factor is another row: as one rule where one holds, else as found.
void propose_other_rows(const SharedSums& sums, const ErrorPlace& place, std::vector<Proposal>& all) {
  const Layer& layer = *sums->evidence().layer;
  const bool tokens = sums->evidence().field == Field::d_gate_up_proj;
  std::map<std::int64_t, std::vector<std::int64_t>> behind;
  bool other = false;
  bool by_slot = tokens;
  for (std::int64_t m = 0; m < sums->matrices(); ++m) {
    const RowTerms own = sums->own(m);
    if (own.empty()) continue;
    auto found = rows_behind(*sums, place, m);
    for (std::size_t t = 0; t < found.size(); ++t) {
      other = other || found[t] != own[t].right;
      by_slot = by_slot && found[t] == layer.routing.gather[index(own[t].left)] % layer.tokens();
    }
    if (!found.empty()) behind[m] = std::move(found);
  }
  if (!other) return;
  all.push_back(proposal("wrong_token",
                         by_slot  ? "the token numbered as the slot is read"
                         : tokens ? "rows are multiplied with the input of other tokens"
                                  : "rows are multiplied with other rows",
                         sums, [sums, behind, by_slot](std::int64_t matrix) {
                           const Layer& of = *sums->evidence().layer;
                           RowTerms terms = sums->own(matrix);
                           const auto found = behind.find(matrix);
                           for (std::size_t t = 0; t < terms.size(); ++t)
                             if (by_slot)
                               terms[t].right = of.routing.gather[index(terms[t].left)] % of.tokens();
                             else if (found != behind.end())
                               terms[t].right = found->second[t];
                           return terms;
                         }));
}

/// Rows of the matrices that are other rows of the same matrix: gate and up halves, seen by equal bits.
void propose_halves(const SharedSums& sums, const ErrorPlace& place, std::vector<Proposal>& all) {
  const Evidence& evidence = sums->evidence();
  if (evidence.field != Field::d_gate_up_proj) return;
  const std::int64_t height = sums->height();
  std::int64_t met = 0;
  std::int64_t looked_at = 0;
  for (const auto r : place.sample.rows) {
    const std::int64_t partner = r / height * height + (r % height + height / 2) % height;
    for (const auto c : place.sample.columns) {
      const auto own = assay::index(evidence, r, c);
      if (evidence.out[own] == evidence.reference[own]) continue;
      ++looked_at;
      met += evidence.out[own] == evidence.reference[assay::index(evidence, partner, c)];
    }
  }
  if (looked_at == 0 || 2 * met < looked_at) return;
  all.push_back({"gate_up_swapped", "gate and up halves are exchanged",
                 by_element([&evidence, height](std::int64_t r, std::int64_t c) {
                   const std::int64_t partner = r / height * height + (r % height + height / 2) % height;
                   return evidence.reference[assay::index(evidence, partner, c)];
                 })});
}

void propose_row_orders(const SharedSums& sums, std::vector<Proposal>& all) {
  all.push_back(proposal(
      "bf16_accumulation", "the running sum is rounded to bf16 after every term", sums,
      [sums](std::int64_t matrix) { return sums->own(matrix); }, true));
  if (sums->evidence().field == Field::d_gate) return;
  all.push_back(
      proposal("row_order", "an expert's rows are summed last one first", sums, [sums](std::int64_t matrix) {
        RowTerms terms = sums->own(matrix);
        std::ranges::reverse(terms);
        return terms;
      }));
  const Layer& layer = *sums->evidence().layer;
  const bool by_slot = layer.contract->weight_gradient_rows == RowOrder::BySlot;
  all.push_back(proposal("row_order",
                         by_slot ? "an expert's rows are summed as they stand, not slot by slot"
                                 : "an expert's rows are summed slot by slot",
                         sums, [sums, by_slot](std::int64_t matrix) {
                           RowTerms terms = sums->own(matrix);
                           const Layer& of = *sums->evidence().layer;
                           std::ranges::stable_sort(terms, {}, [&](const RowTerm& t) {
                             return by_slot ? t.left : of.routing.gather[index(t.left)] % of.config().top_k;
                           });
                           return terms;
                         }));
}

}  // namespace

std::vector<Proposal> propose_weight_gradients(const Evidence& evidence, const ErrorPlace& place) {
  // Under some contracts operands are in no memory: their rows are not known here.
  if (find_step(evidence.field, *evidence.layer->contract) != find_step(evidence.field)) return {};
  const auto sums = std::make_shared<const RowSums>(evidence);
  std::vector<Proposal> all;
  if (place.window.size() == 0) return all;
  const auto fitted = fit_rows(*sums, place, kFittedMatrices);
  propose_own_rows(sums, fitted, -1.0, all);
  propose_own_rows(sums, fitted, 1.0, all);
  propose_neighbours(sums, fitted, all);
  if (evidence.field != Field::d_gate) propose_other_rows(sums, place, all);
  propose_halves(sums, place, all);
  propose_row_orders(sums, all);
  return all;
}

}  // namespace assay
