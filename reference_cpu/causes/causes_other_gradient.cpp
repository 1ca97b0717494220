// Weighted rows of another d_hidden_states: those of a token are its weights times one row, and not the
// problem's.
#include <cmath>
#include <memory>

#include "reference_cpu/causes/causes.h"

namespace assay {

std::vector<Proposal> propose_other_gradient(const Evidence& evidence, const ErrorPlace&) {
  const Layer& layer = *evidence.layer;
  const std::int64_t top_k = layer.config().top_k;
  if (top_k < 2) return {};  // one row is any weight times another row
  const auto& weights = evidence.input(Field::topk_weights);
  const auto& gather = layer.routing.gather;
  const auto token_of = [&gather, top_k](std::int64_t r) {
    return static_cast<std::int64_t>(gather[static_cast<std::size_t>(r)]) / top_k;
  };
  const auto weight_of = [&gather, &weights](std::int64_t r) -> double {
    return weights[static_cast<std::size_t>(gather[static_cast<std::size_t>(r)])].value;
  };
  // Of every token the row that its rows are the weights' multiples of, by least squares.
  auto rows =
      std::make_shared<std::vector<double>>(static_cast<std::size_t>(layer.tokens() * evidence.width));
  std::vector<double> squares(static_cast<std::size_t>(layer.tokens()));
  for (std::int64_t r = 0; r < evidence.rows; ++r) {
    squares[static_cast<std::size_t>(token_of(r))] += weight_of(r) * weight_of(r);
    for (std::int64_t c = 0; c < evidence.width; ++c)
      (*rows)[static_cast<std::size_t>(token_of(r) * evidence.width + c)] +=
          weight_of(r) * to_float(evidence.out[index(evidence, r, c)]);
  }
  for (std::size_t i = 0; i < rows->size(); ++i) {
    const double square = squares[i / static_cast<std::size_t>(evidence.width)];
    if (!(square > 0.0)) return {};
    (*rows)[i] /= square;
  }
  return {{"other_gradient", "the rows are the weights times another d_hidden_states than the problem's",
           by_element([&evidence, rows, token_of, weight_of](std::int64_t r, std::int64_t c) {
             const double x = (*rows)[static_cast<std::size_t>(token_of(r) * evidence.width + c)];
             return evidence.stored(weight_of(r) * x);
           })}};
}

}  // namespace assay
