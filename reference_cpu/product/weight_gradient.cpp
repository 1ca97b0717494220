#include "reference_cpu/product/weight_gradient.h"

#include <algorithm>
#include <numeric>

#include "harness/contract/worth_threads.h"

namespace assay {
namespace {

constexpr std::int64_t kColumnsAtOnce = 16;

Interval exactly(Bf16 x, Interval) {
  const double value = to_float(x);
  return {value, value, value};
}
PredictedValue exactly(Bf16 x, PredictedValue) { return {to_float(x), false}; }

template <class Value>
const Value& exactly(const Value& x, Value) {
  return x;
}

/// columns [columns.begin, columns.end) of the rows, as rows: [columns, rows]; `from` is values or bf16.
/// A few columns at a time, for neighbours of a row share a line of the cache and rows are far apart.
template <class Value, class From>
LargeVector<Value> transposed(std::span<const From> from, std::int64_t width, RowRange columns,
                              std::span<const std::int64_t> rows) {
  const auto k = std::ssize(rows);
  LargeVector<Value> out(static_cast<std::size_t>(columns.count() * k));
#pragma omp parallel for schedule(static) if (worth_threads(columns.count() * k))
  for (std::int64_t first = 0; first < columns.count(); first += kColumnsAtOnce)
    for (std::int64_t i = 0; i < k; ++i) {
      const std::int64_t row = rows[static_cast<std::size_t>(i)] * width + columns.begin;
      for (std::int64_t c = first; c < std::min(first + kColumnsAtOnce, columns.count()); ++c)
        out[static_cast<std::size_t>(c * k + i)] = exactly(from[static_cast<std::size_t>(row + c)], Value{});
    }
  return out;
}

/// The rows one after the other: [rows, width]; `from` is values or bf16.
template <class Value, class From>
LargeVector<Value> gathered(std::span<const From> from, std::int64_t width,
                            std::span<const std::int64_t> rows) {
  LargeVector<Value> out(rows.size() * static_cast<std::size_t>(width));
#pragma omp parallel for schedule(static) if (worth_threads(out.size()))
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (std::int64_t n = 0; n < width; ++n)
      out[i * static_cast<std::size_t>(width) + static_cast<std::size_t>(n)] =
          exactly(from[static_cast<std::size_t>(rows[i] * width + n)], Value{});
  return out;
}

}  // namespace

std::vector<std::int64_t> summed_rows(ProductId id, const Layer& layer, std::int64_t expert) {
  if (row(id).summed == Dim::T) {
    std::vector<std::int64_t> tokens(static_cast<std::size_t>(layer.tokens()));
    std::iota(tokens.begin(), tokens.end(), 0);
    return tokens;
  }
  const auto& offsets = layer.routing.offsets;
  const auto first = offsets[static_cast<std::size_t>(expert)];
  const auto last = offsets[static_cast<std::size_t>(expert) + 1];
  std::vector<std::int64_t> rows(static_cast<std::size_t>(last - first));
  std::iota(rows.begin(), rows.end(), first);
  if (layer.contract->weight_gradient_rows == RowOrder::BySlot)
    std::ranges::stable_sort(rows, {}, [&](std::int64_t r) {
      return layer.routing.gather[static_cast<std::size_t>(r)] % layer.config().top_k;
    });
  return rows;
}

template <class A>
PreparedProduct<A> prepare_weight_gradient(ProductId id, const Layer& layer, std::int64_t expert,
                                           RowRange rows, const Values<A>* left, const Values<A>* right) {
  using Value = typename A::Value;
  const ProductRow& what = row(id);
  const Sizes sizes = layer.problem->sizes();
  const std::vector<std::int64_t> summed = summed_rows(id, layer, expert);
  std::vector<std::int64_t> tokens = summed;
  for (auto& r : tokens)
    if (what.summed == Dim::S) r = layer.routing.gather[static_cast<std::size_t>(r)] / layer.config().top_k;
  PreparedProduct<A> prepared;
  auto& product = prepared.product;
  product.k = std::ssize(summed);
  product.n = width_of(what.made, sizes);
  const std::int64_t left_width = width_of(what.left, sizes);
  prepared.lifted =
      left == nullptr ? transposed<Value>(given_left(id, layer).template as<Bf16>(), left_width, rows, tokens)
                      : transposed<Value>(std::span<const Value>(*left), left_width, rows, summed);
  prepared.right = right == nullptr
                       ? gathered<Value>(layer.problem->input.template as<Bf16>(), product.n, tokens)
                       : gathered<Value>(std::span<const Value>(*right), product.n, summed);
  prepared.source.resize(static_cast<std::size_t>(rows.count()));
  std::iota(prepared.source.begin(), prepared.source.end(), 0);
  prepared.offsets = {0, rows.count()};
  product.left = prepared.lifted;
  product.right = prepared.right;
  product.right_lies = what.right_lies;
  product.source = prepared.source;
  product.offsets = prepared.offsets;
  product.accumulator = accumulator_of<A>(id, layer);
  product.unit_roundoff = layer.contract->product_unit_roundoff();
  product.engine = layer.engine;
  product.whole = extent(what.summed, sizes) * left_width * product.n;
  return prepared;
}

namespace {

/// Rows of the field that the product makes, all experts' matrices counted through, cut where experts end.
std::vector<RowRange> of_single_experts(ProductId id, const Layer& layer, RowRange rows) {
  const auto matrix = width_of(row(id).left, layer.problem->sizes());
  std::vector<RowRange> parts;
  for (std::int64_t begin = rows.begin; begin < rows.end; begin = parts.back().end)
    parts.push_back({begin, std::min(rows.end, (begin / matrix + 1) * matrix)});
  return parts;
}

/// Of rows of one expert's matrix, all experts' counted through.
template <class A>
PreparedProduct<A> prepare_part(ProductId id, const Layer& layer, RowRange rows, const Values<A>* left,
                                const Values<A>* right) {
  const auto matrix = width_of(row(id).left, layer.problem->sizes());
  const std::int64_t expert = rows.begin / matrix;
  return prepare_weight_gradient<A>(id, layer, expert,
                                    {rows.begin - expert * matrix, rows.end - expert * matrix}, left, right);
}

}  // namespace

template <class A>
Values<A> weight_gradient(ProductId id, const Layer& layer, RowRange rows, const Values<A>* left,
                          const Values<A>* right) {
  const auto n = width_of(row(id).made, layer.problem->sizes());
  Values<A> out;
  for (const RowRange part : of_single_experts(id, layer, rows)) {
    const auto prepared = prepare_part<A>(id, layer, part, left, right);
    auto values = grouped_product(prepared.product);
    add_common_error(prepared.product, values);
    if (part == rows) return values;
    out.resize(static_cast<std::size_t>(rows.count() * n));
    std::ranges::copy(values, out.begin() + (part.begin - rows.begin) * n);
  }
  return out;
}

std::shared_ptr<const KeptIntervals> kept_weight_gradient(ProductId id, const Layer& layer, RowRange rows,
                                                          const Values<Bounded>* left,
                                                          const Values<Bounded>* right,
                                                          bool above_underflow) {
  if (of_single_experts(id, layer, rows).size() != 1) return nullptr;
  const auto prepared = prepare_part<Bounded>(id, layer, rows, left, right);
  CommonErrors errors = common_errors(prepared.product);
  errors.above_underflow = above_underflow;
  return kept_product(prepared.product, errors);
}

std::optional<LargeVector<std::uint16_t>> weight_gradient_words(ProductId id, const Layer& layer,
                                                                RowRange rows, const Values<Predicted>* left,
                                                                const Values<Predicted>* right) {
  const auto n = width_of(row(id).made, layer.problem->sizes());
  LargeVector<std::uint16_t> words(static_cast<std::size_t>(rows.count() * n));
  for (const RowRange part : of_single_experts(id, layer, rows)) {
    const auto prepared = prepare_part<Predicted>(id, layer, part, left, right);
    const auto its_words = std::span(words).subspan(static_cast<std::size_t>((part.begin - rows.begin) * n),
                                                    static_cast<std::size_t>(part.count() * n));
    if (!product_words(prepared.product, its_words)) return {};
  }
  return words;
}

template PreparedProduct<Bounded> prepare_weight_gradient<Bounded>(ProductId, const Layer&, std::int64_t,
                                                                   RowRange, const Values<Bounded>*,
                                                                   const Values<Bounded>*);
template PreparedProduct<Predicted> prepare_weight_gradient<Predicted>(ProductId, const Layer&, std::int64_t,
                                                                       RowRange, const Values<Predicted>*,
                                                                       const Values<Predicted>*);
template Values<Bounded> weight_gradient<Bounded>(ProductId, const Layer&, RowRange, const Values<Bounded>*,
                                                  const Values<Bounded>*);
template Values<Predicted> weight_gradient<Predicted>(ProductId, const Layer&, RowRange,
                                                      const Values<Predicted>*, const Values<Predicted>*);

}  // namespace assay
