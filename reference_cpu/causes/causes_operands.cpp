// Products on wrong operands: another expert's weights, another row's input, a weight read in another layout.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>

#include <fmt/format.h>

#include "reference_cpu/causes/causes_product.h"

namespace assay {
namespace {

constexpr std::size_t kProbedRows = 8;  // wrong rows whose origin is searched
constexpr std::size_t kProbedColumns = 48;
constexpr std::int64_t kLoadedWeights = std::int64_t{1} << 26;  // weights loaded to search other experts
constexpr double kProbeWork = 1e8;                              // multiply-adds of one search over rows
constexpr double kFound = 0.1;  // largest share of a row's energy that the right origin leaves

using Operands = std::shared_ptr<const ProductOperands>;

std::int64_t wrapped(std::int64_t i, std::int64_t n) { return ((i % n) + n) % n; }

template <class T>
std::vector<T> spread(const std::vector<T>& from, std::size_t count) {
  if (from.size() <= count) return from;
  std::vector<T> some;
  for (std::size_t i = 0; i < count; ++i) some.push_back(from[i * from.size() / count]);
  return some;
}

/// Share of the output's energy that row `left_row` times these weights leaves unexplained.
double unexplained(const Evidence& evidence, const ProductOperands& operands, std::int64_t row,
                   std::int64_t left_row, std::span<const Bf16> weights,
                   const std::vector<std::int64_t>& columns) {
  double left_over = 0.0;
  double energy = 0.0;
  const auto left =
      std::span(operands.left)
          .subspan(static_cast<std::size_t>(left_row * operands.k), static_cast<std::size_t>(operands.k));
  for (const auto c : columns) {
    const double out = to_float(evidence.out[static_cast<std::size_t>(row * evidence.width + c)]);
    const auto column = weights.subspan(static_cast<std::size_t>(c * operands.k), left.size());
    double sum = 0.0;
    for (std::size_t k = 0; k < left.size(); ++k)
      sum += static_cast<double>(left[k].value) * to_float(column[k]);
    left_over += (out - sum) * (out - sum);
    energy += out * out;
  }
  return energy > 0.0 && std::isfinite(left_over) ? left_over / energy : 1.0;
}

/// Neighbours of an expert first, then the others the batch uses, then all.
std::vector<std::int64_t> experts_to_try(const ProductOperands& operands, std::int64_t of) {
  std::vector<std::int64_t> order;
  std::set<std::int64_t> seen = {of};
  const auto add = [&](std::int64_t e) {
    if (seen.insert(e).second) order.push_back(e);
  };
  for (const std::int64_t away : {1, -1, 2, -2}) add(wrapped(of + away, operands.experts));
  add(0);
  for (const auto e : operands.expert) add(e);
  for (std::int64_t e = 0; e < operands.experts; ++e) add(e);
  const auto most = static_cast<std::size_t>(
      std::max<std::int64_t>(4, kLoadedWeights / std::max<std::int64_t>(1, operands.n * operands.k)));
  if (order.size() > most) order.resize(most);
  return order;
}

Proposal other_experts(std::string sentence, const Operands& operands,
                       std::function<std::int64_t(std::int64_t expert)> of) {
  return {"wrong_expert", std::move(sentence), [operands, of](const Window& window) {
            ProductChange change;
            change.expert = [&](std::int64_t row) {
              return of(operands->expert[static_cast<std::size_t>(row)]);
            };
            return stored_bits(product(*operands, window, change));
          }};
}

void propose_experts(const Evidence& evidence, const Operands& operands, const Window& sample,
                     std::vector<Proposal>& all) {
  if (operands->experts < 2) return;
  const auto columns = spread(sample.columns, kProbedColumns);
  std::map<std::int64_t, std::int64_t> row_of;  // one wrong row of each expert
  for (const auto r : sample.rows)
    if (row_of.size() < kProbedRows) row_of.emplace(operands->expert[static_cast<std::size_t>(r)], r);
  std::map<std::int64_t, std::int64_t> found;
  for (const auto& [expert, row] : row_of) {
    double least = kFound;
    const auto source = operands->source[static_cast<std::size_t>(row)];
    for (const auto other : experts_to_try(*operands, expert)) {
      const double left =
          unexplained(evidence, *operands, row, source, operands->weights(other).values, columns);
      if (left >= least) continue;
      least = left;
      found[expert] = other;
    }
  }
  if (found.empty()) return;
  const std::int64_t n = operands->experts;
  const std::int64_t first = found.begin()->first;
  const std::int64_t its = found.begin()->second;
  const std::int64_t away = wrapped(its - first, n);
  if (found.size() == 1) {
    all.push_back(
        other_experts(fmt::format("expert {}'s weights are used instead of expert {}'s", its, first),
                      operands, [first, its](std::int64_t e) { return e == first ? its : e; }));
    return;
  }
  if (std::ranges::all_of(found,
                          [&](const auto& one) { return wrapped(one.second - one.first, n) == away; })) {
    auto which = fmt::format("the weights of the expert {} further on", away);
    if (away == n - 1) which = "the weights of the expert before";
    if (away == 1) which = "the next expert's weights";
    all.push_back(other_experts(fmt::format("{} are used", which), operands,
                                [away, n](std::int64_t e) { return wrapped(e + away, n); }));
  } else if (std::ranges::all_of(found, [&](const auto& one) { return one.second == its; })) {
    all.push_back(other_experts(fmt::format("expert {}'s weights are used", its), operands,
                                [its](std::int64_t) { return its; }));
  } else {
    // Each row its own wrong expert: known only for the experts that were searched.
    all.push_back(other_experts(
        fmt::format("the weights of other experts are used (expert {} gets those of {})", first, its),
        operands, [found](std::int64_t e) {
          const auto one = found.find(e);
          return one == found.end() ? e : one->second;
        }));
  }
}

/// Tokens of rows in expert order as somebody may count them.
struct TokenRule {
  std::string_view sentence;
  std::int64_t (*token)(const Evidence&, std::int64_t r);
};

std::int64_t slot_of(const Evidence& evidence, std::int64_t r) {
  return evidence.layer->routing.gather[static_cast<std::size_t>(r)];
}

// clang-format off
constexpr TokenRule kTokenRules[] = {
    {"the tokens are those of slots counted j T + t",
     [](const Evidence& e, std::int64_t r) { return slot_of(e, r) % e.layer->tokens(); }},
    {"the tokens are numbered as their slots, not beyond the last",
     [](const Evidence& e, std::int64_t r) { return std::min(slot_of(e, r), e.layer->tokens() - 1); }},
    {"the tokens are those of slots in slot order, not in expert order",
     [](const Evidence& e, std::int64_t r) { return r / e.layer->config().top_k; }},
    {"the tokens are those of rows counted modulo T",
     [](const Evidence& e, std::int64_t r) { return r % e.layer->tokens(); }},
};
// clang-format on

/// The rule that all rows whose origin was found follow; null where none is.
const TokenRule* token_rule(const Evidence& evidence, const ProductOperands& operands,
                            const std::map<std::int64_t, std::int64_t>& found) {
  if (evidence.field != Field::first_gemm || operands.left_rows != evidence.layer->tokens()) return nullptr;
  const auto rule = std::ranges::find_if(kTokenRules, [&](const TokenRule& one) {
    return std::ranges::all_of(found,
                               [&](const auto& row) { return one.token(evidence, row.first) == row.second; });
  });
  return rule == std::end(kTokenRules) ? nullptr : &*rule;
}

/// Whether the rule holds of the rows that are right as well: then it needs no place.
bool holds_of_others(const TokenRule& rule, const Evidence& evidence, const ProductOperands& operands,
                     const std::vector<std::int64_t>& wrong) {
  for (std::int64_t r = 0; r < evidence.rows; ++r)
    if (!std::ranges::binary_search(wrong, r) &&
        rule.token(evidence, r) != operands.source[static_cast<std::size_t>(r)])
      return false;
  return true;
}

void propose_inputs(const Evidence& evidence, const Operands& operands, const ErrorPlace& place,
                    std::vector<Proposal>& all) {
  const Window& sample = place.sample;
  const auto columns = spread(sample.columns, kProbedColumns);
  const auto rows = spread(sample.rows, kProbedRows);
  const double per_row = static_cast<double>(columns.size()) * static_cast<double>(operands->k) *
                         static_cast<double>(rows.size());
  const auto reach = std::max<std::int64_t>(4, static_cast<std::int64_t>(kProbeWork / per_row / 2));
  std::map<std::int64_t, std::int64_t> found;  // row of the field, row of the left operand it used
  for (const auto r : rows) {
    const auto own = operands->source[static_cast<std::size_t>(r)];
    const ExpertMatrix weights = operands->weights(operands->expert[static_cast<std::size_t>(r)]);
    double least = kFound;
    for (std::int64_t other = std::max<std::int64_t>(0, own - reach);
         other < std::min<std::int64_t>(operands->left_rows, own + reach + 1); ++other) {
      if (other == own) continue;
      const double left = unexplained(evidence, *operands, r, other, weights.values, columns);
      if (left >= least) continue;
      least = left;
      found[r] = other;
    }
  }
  if (found.empty()) return;
  const auto& [row, its] = *found.begin();
  const auto own = operands->source[static_cast<std::size_t>(row)];
  // Counted round the ends, by the shorter way.
  const auto offset = [&](std::int64_t from, std::int64_t to) {
    const auto further = wrapped(to - from, operands->left_rows);
    return 2 * further > operands->left_rows ? further - operands->left_rows : further;
  };
  const std::int64_t away = offset(own, its);
  const Field left = assay::row(*product_of(evidence.field)).left;
  const auto word = assay::row(left).rows == RowsAre::ExpertOrder ? "row" : "token";
  std::function<std::int64_t(std::int64_t)> from;
  std::string sentence;
  bool everywhere = false;
  const auto& source = operands->source;
  const auto same_offset = [&](const auto& one) {
    return offset(source[static_cast<std::size_t>(one.first)], one.second) == away;
  };
  // The input that the row before or after should have read: an index off by one.
  const auto neighbour = [&](std::int64_t by) {
    return std::ranges::all_of(found, [&](const auto& one) {
      const auto at = one.first + by;
      return at >= 0 && at < evidence.rows && source[static_cast<std::size_t>(at)] == one.second;
    });
  };
  if (sample.rows.size() == 1) {
    sentence = fmt::format("the input is that of {} {}, not of {} {}", word, its, word, own);
    from = [its = its](std::int64_t) { return its; };
  } else if (std::ranges::all_of(found, same_offset)) {
    sentence = fmt::format("the input is that of the {} {} {}", word, std::abs(away),
                           away < 0 ? "before" : "further on");
    from = [operands, away](std::int64_t r) {
      return wrapped(operands->source[static_cast<std::size_t>(r)] + away, operands->left_rows);
    };
  } else if (neighbour(-1) || neighbour(1)) {
    const std::int64_t by = neighbour(-1) ? -1 : 1;
    sentence = fmt::format("the input is that of the row {}", by < 0 ? "before" : "after");
    from = [operands, by](std::int64_t r) {
      return operands->source[static_cast<std::size_t>(
          wrapped(r + by, static_cast<std::int64_t>(operands->source.size())))];
    };
  } else if (std::ranges::all_of(found, [&](const auto& one) { return one.second == its; })) {
    sentence = fmt::format("the input is that of {} {}", word, its);
    from = [its = its](std::int64_t) { return its; };
  } else if (const auto* rule = token_rule(evidence, *operands, found)) {
    sentence = rule->sentence;
    everywhere = holds_of_others(*rule, evidence, *operands, place.window.rows);
    from = [operands, &evidence, rule](std::int64_t r) { return rule->token(evidence, r); };
  } else {
    return;
  }
  all.push_back({"wrong_token", std::move(sentence),
                 [operands, from](const Window& window) {
                   ProductChange change;
                   change.left = [&](std::int64_t r, std::span<PredictedValue> left) {
                     std::ranges::copy(
                         std::span(operands->left)
                             .subspan(static_cast<std::size_t>(from(r) * operands->k), left.size()),
                         left.begin());
                   };
                   return stored_bits(product(*operands, window, change));
                 },
                 everywhere});
}

/// first_gemm's columns in another order: the halves exchanged, or interleaved.
void propose_columns(const Evidence& evidence, std::vector<Proposal>& all) {
  if (evidence.field != Field::first_gemm) return;
  const std::int64_t half = evidence.width / 2;
  const auto reordered = [&](std::string_view id, std::string sentence, auto column) {
    all.push_back({id, std::move(sentence), [&evidence, column](const Window& window) {
                     std::vector<Stored> bits;
                     for (const auto r : window.rows)
                       for (const auto c : window.columns)
                         bits.push_back(
                             evidence.reference[static_cast<std::size_t>(r * evidence.width + column(c))]);
                     return bits;
                   }});
  };
  reordered("gate_up_swapped", "gate and up halves are exchanged",
            [half](std::int64_t c) { return c < half ? c + half : c - half; });
  reordered("gate_up_interleaved", "gate and up columns are written as interleaved pairs",
            [half](std::int64_t c) { return c % 2 == 0 ? c / 2 : half + c / 2; });
  reordered("gate_up_interleaved", "the weights are taken for interleaved pairs of gate and up",
            [half](std::int64_t c) { return c < half ? 2 * c : 2 * (c - half) + 1; });
}

}  // namespace

std::vector<Proposal> propose_operands(const Evidence& evidence, const ErrorPlace& place) {
  const auto operands = std::make_shared<const ProductOperands>(operands_of(evidence));
  std::vector<Proposal> all;
  propose_columns(evidence, all);
  propose_experts(evidence, operands, place.sample, all);
  propose_inputs(evidence, operands, place, all);
  all.push_back({"transposed_weight", "the weight is read transposed", [operands](const Window& window) {
                   ProductChange change;
                   const bool turned =
                       row(*product_of(operands->evidence->field)).right_lies == Lies::AlongRows;
                   change.weight = [&, turned](std::span<const Bf16> whole, std::int64_t, std::int64_t column,
                                               std::span<Bf16> weight) {
                     const auto n = static_cast<std::size_t>(operands->n);
                     const auto c = static_cast<std::size_t>(column);
                     for (std::size_t k = 0; k < weight.size(); ++k) {
                       const std::size_t stored =
                           c * weight.size() + k;  // of a layout [k, n], read as [n, k]
                       weight[k] = turned ? whole[stored % n * weight.size() + stored / n] : whole[k * n + c];
                     }
                   };
                   return stored_bits(product(*operands, window, change));
                 }});
  return all;
}

}  // namespace assay
