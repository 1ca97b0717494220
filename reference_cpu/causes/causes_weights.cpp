// Hypotheses about the router's weights: what is normalised over what, and in which order they stand.
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>

#include <fmt/format.h>

#include "reference_cpu/causes/causes.h"
#include "reference_cpu/product/layer_product.h"
#include "reference_cpu/warp_sum.h"

namespace assay {
namespace {

using Row = std::vector<float>;  // [K]

struct Token {
  std::int64_t index = 0;
  Row logits;                          // [E]
  Row probabilities;                   // [E]
  Row column_shares;                   // [K]: the softmax over the tokens, of the chosen experts
  std::vector<std::int32_t> selected;  // [K]
};

float to_bf16(float x) { return to_float(round_to_bf16(x)); }

Row chosen(const Row& from, const Token& token) {
  Row row;
  for (const auto e : token.selected) row.push_back(from[static_cast<std::size_t>(e)]);
  return row;
}

Row divided_by_sum(Row row) {
  const float sum = warp_sum(row);
  for (auto& x : row) x /= sum;
  return row;
}

template <class Change>
Row each(Row row, Change change) {
  for (auto& x : row) x = change(x);
  return row;
}

struct WeightsVariant {
  std::string_view id;
  std::string_view sentence;
  Row (*weights)(const Token&);
};

// clang-format off
constexpr WeightsVariant kVariants[] = {
    {"not_renormalised",      "the weights are not divided by their sum",
     [](const Token& t) { return chosen(t.probabilities, t); }},
    {"renormalised",          "the weights are divided by their sum",
     [](const Token& t) { return divided_by_sum(chosen(t.probabilities, t)); }},
    {"renormalised_twice",    "the weights are divided by their sum twice",
     [](const Token& t) {
       const Row row = chosen(t.probabilities, t);
       const float sum = warp_sum(row);
       return each(row, [sum](float x) { return x / sum / sum; });
     }},
    {"renormalised_twice",    "the weights are divided by their sum, rounded, and divided by their sum again",
     [](const Token& t) { return divided_by_sum(each(divided_by_sum(chosen(t.probabilities, t)), to_bf16)); }},
    {"softmax_over_selected", "the softmax runs over the chosen experts only",
     [](const Token& t) {
       const Row logits = chosen(t.logits, t);
       const float top = *std::ranges::max_element(logits);
       return divided_by_sum(each(logits, [top](float x) { return std::exp(x - top); }));
     }},
    {"probabilities_rounded", "the probabilities are rounded to bf16 before they are divided by their sum",
     [](const Token& t) { return divided_by_sum(each(chosen(t.probabilities, t), to_bf16)); }},
    {"no_softmax",            "the weights are the logits themselves, without a softmax",
     [](const Token& t) { return chosen(t.logits, t); }},
    {"no_softmax",            "the weights are the logits divided by their sum, without a softmax",
     [](const Token& t) { return divided_by_sum(chosen(t.logits, t)); }},
    {"no_softmax",            "the weights are sigmoids of the logits",
     [](const Token& t) { return each(chosen(t.logits, t), [](float x) { return 1.0f / (1.0f + std::exp(-x)); }); }},
    {"no_softmax",            "the weights are sigmoids of the logits, divided by their sum",
     [](const Token& t) { return divided_by_sum(each(chosen(t.logits, t), [](float x) { return 1.0f / (1.0f + std::exp(-x)); })); }},
    {"no_softmax",            "the weights are exponentials of the logits, not divided by their sum",
     [](const Token& t) { return each(chosen(t.logits, t), [](float x) { return std::exp(x); }); }},
    {"softmax_over_tokens",   "the softmax runs over the tokens, not over the experts",
     [](const Token& t) { return t.column_shares; }},
    {"softmax_over_tokens",   "the softmax runs over the tokens, not over the experts; the weights are divided by their sum",
     [](const Token& t) { return divided_by_sum(t.column_shares); }},
};
// clang-format on

/// Everything a variant reads, token by token, from logits [T, E].
std::vector<Token> tokens_of(const Evidence& evidence, const Values<Predicted>& logits) {
  const auto experts = static_cast<std::size_t>(evidence.layer->config().num_experts);
  const auto top_k = static_cast<std::size_t>(evidence.width);
  Row top(experts, -INFINITY);
  Row total(experts, 0.0f);
  for (std::size_t i = 0; i < logits.size(); ++i)
    top[i % experts] = std::max(top[i % experts], logits[i].value);
  for (std::size_t i = 0; i < logits.size(); ++i)
    total[i % experts] += std::exp(logits[i].value - top[i % experts]);
  std::vector<Token> all;
  for (std::size_t t = 0; t < static_cast<std::size_t>(evidence.rows); ++t) {
    Token token;
    token.index = static_cast<std::int64_t>(t);
    const auto row = std::span(logits).subspan(t * experts, experts);
    for (const auto& l : row) token.logits.push_back(l.value);
    for (const auto& p : probabilities(row)) token.probabilities.push_back(p.value);
    const auto selected = std::span(evidence.layer->routing.selected).subspan(t * top_k, top_k);
    token.selected.assign(selected.begin(), selected.end());
    for (const auto e : selected)
      token.column_shares.push_back(
          std::exp(row[static_cast<std::size_t>(e)].value - top[static_cast<std::size_t>(e)]) /
          total[static_cast<std::size_t>(e)]);
    all.push_back(std::move(token));
  }
  return all;
}

using Tokens = std::shared_ptr<const std::vector<Token>>;

Proposal by_token(std::string_view id, std::string sentence, const Tokens& tokens,
                  std::function<Row(const Token&)> weights) {
  return {id, std::move(sentence), [tokens, weights](const Window& window) {
            std::vector<Bf16> bits;
            for (const auto t : window.rows) {
              const Row row = weights((*tokens)[static_cast<std::size_t>(t)]);
              for (const auto c : window.columns)
                bits.push_back(round_to_bf16(row[static_cast<std::size_t>(c)]));
            }
            return bits;
          }};
}

}  // namespace

std::vector<Proposal> propose_weights(const Evidence& evidence, const ErrorPlace&) {
  const bool renormalised = evidence.layer->config().norm_topk_prob;
  const auto tokens =
      std::make_shared<const std::vector<Token>>(tokens_of(evidence, evidence.input(Field::router_logits)));
  std::vector<Proposal> all;
  for (const auto& variant : kVariants)
    if (variant.id != (renormalised ? "renormalised" : "not_renormalised"))
      all.push_back(by_token(variant.id, std::string(variant.sentence), tokens, variant.weights));

  const auto as_declared = [renormalised](const Token& t) {
    const Row row = chosen(t.probabilities, t);
    return renormalised ? divided_by_sum(row) : row;
  };
  Layer unrounded = *evidence.layer;
  unrounded.fault = {};
  const auto from_unrounded = std::make_shared<const std::vector<Token>>(
      tokens_of(evidence, product_values<Predicted>(ProductId::router, unrounded, nullptr)));
  all.push_back(by_token("logits_unrounded", "the softmax runs on logits that are not rounded to bf16",
                         from_unrounded, as_declared));

  const std::int64_t top_k = evidence.width;
  std::vector<std::int64_t> order(static_cast<std::size_t>(top_k));
  const auto permuted = [&](std::string sentence, const std::vector<std::int64_t>& from) {
    all.push_back(
        by_token("weights_permuted", std::move(sentence), tokens, [as_declared, from](const Token& t) {
          const Row row = as_declared(t);
          Row result;
          for (const auto j : from) result.push_back(row[static_cast<std::size_t>(j)]);
          return result;
        }));
  };
  for (std::int64_t i = 0; i < top_k; ++i)
    for (std::int64_t j = i + 1; j < top_k; ++j) {
      std::iota(order.begin(), order.end(), 0);
      std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(j)]);
      permuted(fmt::format("the weights of slots {} and {} are exchanged", i, j), order);
    }
  if (top_k > 2) {
    std::iota(order.begin(), order.end(), 0);
    std::ranges::reverse(order);
    permuted("the weights stand in reverse order", order);
    std::iota(order.begin(), order.end(), 0);
    std::ranges::rotate(order, order.begin() + 1);
    permuted("every slot has the next slot's weight", order);
    std::ranges::rotate(order, order.end() - 2);
    permuted("every slot has the slot before's weight", order);
  }
  all.push_back(by_token("weights_permuted", "the weights stand in the order of their experts", tokens,
                         [as_declared](const Token& t) {
                           const Row row = as_declared(t);
                           std::vector<std::size_t> by_expert(row.size());
                           std::iota(by_expert.begin(), by_expert.end(), std::size_t{0});
                           std::ranges::sort(by_expert, {}, [&](std::size_t j) { return t.selected[j]; });
                           Row result;
                           for (const auto j : by_expert) result.push_back(row[j]);
                           return result;
                         }));
  return all;
}

}  // namespace assay
