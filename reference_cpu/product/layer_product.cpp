#include "reference_cpu/product/layer_product.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "harness/contract/element_constants.h"
#include "harness/contract/error.h"
#include "harness/contract/worth_threads.h"
#include "reference_cpu/planted/planted.h"

namespace assay {
namespace {

/// By how much errors of one sign may shrink a row (or column) at most: the sum of mean errors over the sum
/// of magnitudes.
struct CommonError {
  double errors = 0.0;
  double magnitudes = 0.0;
  void add(const Interval& x) {
    errors += x.mean;
    magnitudes += std::fabs(x.ref);
  }
  double share() const { return errors > 0.0 ? errors / magnitudes : 0.0; }
};

double common_share_of_row(std::span<const Interval> row) {
  CommonError sums;
  for (const Interval& x : row) sums.add(x);
  return sums.share();
}

/// Of columns that lie along rows a few at a time, for neighbours of a row share a line of the cache.
std::vector<double> common_shares_of_columns(const GroupedProduct<Interval>& p) {
  constexpr std::int64_t kAtOnce = 16;
  std::vector<double> shares(static_cast<std::size_t>(p.n));
  if (p.weights) return shares;
#pragma omp parallel for schedule(static) if (worth_threads(p.right.size()))
  for (std::int64_t first = 0; first < p.n; first += kAtOnce) {
    const std::int64_t count = std::min(kAtOnce, p.n - first);
    CommonError sums[kAtOnce];
    for (std::int64_t i = 0; i < p.k; ++i)
      for (std::int64_t c = 0; c < count; ++c)
        sums[c].add(p.right[static_cast<std::size_t>(
            p.right_lies == Lies::AlongColumns ? (first + c) * p.k + i : i * p.n + first + c)]);
    for (std::int64_t c = 0; c < count; ++c) shares[static_cast<std::size_t>(first + c)] = sums[c].share();
  }
  return shares;
}

}  // namespace

/// At most the share of the row's mean errors in its magnitudes, and the column's. Stored values of a
/// truncating product err like that.
CommonErrors common_errors(const GroupedProduct<Interval>& p) {
  CommonErrors errors{std::vector<double>(p.source.size()), common_shares_of_columns(p)};
#pragma omp parallel for schedule(static) if (worth_threads(p.source.size() * static_cast<std::size_t>(p.k)))
  for (std::size_t r = 0; r < p.source.size(); ++r)
    errors.of_rows[r] = common_share_of_row(
        p.left.subspan(static_cast<std::size_t>(p.source[r] * p.k), static_cast<std::size_t>(p.k)));
  return errors;
}

void add_common_error(const GroupedProduct<Interval>& p, Values<Bounded>& values) {
  const CommonErrors errors = common_errors(p);
  const auto& of_columns = errors.of_columns;
  const bool some_column = std::ranges::any_of(of_columns, [](double share) { return share > 0.0; });
#pragma omp parallel for schedule(static) if (worth_threads(values.size()))
  for (std::size_t r = 0; r < p.source.size(); ++r) {
    const double of_row = errors.of_rows[r];
    if (!some_column && !(of_row > 0.0)) continue;
    for (std::size_t c = 0; c < of_columns.size(); ++c) {
      Interval& x = values[r * of_columns.size() + c];
      x = with_common_error(x, of_row + of_columns[c]);
    }
  }
}

ExpertMatrix right_operand(ProductId id, const Problem& problem, std::int64_t group) {
  const ProductRow& what = row(id);
  if (!per_expert(what)) return {problem.gate.as<Bf16>(), nullptr};
  return problem.experts(what.right, group);
}

const Tensor& given_left(ProductId id, const Layer& layer) {
  const Problem& problem = *layer.problem;
  if (given(row(id).left) || problem.input.size() == 0) return problem.input;
  if (problem.output_gradient.shape() != problem.input.shape())
    throw InputError(fmt::format("{}: gradients need d_hidden_states {}, found {}", problem.name,
                                 to_string(problem.input.shape()),
                                 to_string(problem.output_gradient.shape())));
  return problem.output_gradient;
}

std::vector<Bf16> right_column(ProductId id, const ExpertMatrix& matrix, std::int64_t k, std::int64_t n,
                               std::int64_t col) {
  const bool along = row(id).right_lies == Lies::AlongColumns;
  std::vector<Bf16> factors(static_cast<std::size_t>(k));
  for (std::int64_t i = 0; i < k; ++i)
    factors[static_cast<std::size_t>(i)] =
        matrix.values[static_cast<std::size_t>(along ? col * k + i : i * n + col)];
  return factors;
}

template <class A>
PreparedProduct<A> prepare_product(ProductId id, const Layer& layer, const Values<A>* left) {
  const ProductRow& what = row(id);
  const Sizes sizes = layer.problem->sizes();
  PreparedProduct<A> prepared;
  auto& product = prepared.product;
  if (left == nullptr) prepared.lifted = lift<A>(given_left(id, layer));
  product.left = left == nullptr ? std::span(prepared.lifted) : std::span(*left);
  prepared.source.resize(static_cast<std::size_t>(rows_of(what.made, sizes)));
  if (per_expert(what)) {
    prepared.offsets = layer.routing.offsets;
  } else {
    prepared.offsets = {0, std::ssize(prepared.source)};
  }
  if (row(what.made).rows == RowsAre::ExpertOrder &&
      (left == nullptr || row(what.left).rows == RowsAre::Tokens)) {
    const auto top_k = static_cast<std::int32_t>(sizes.config.top_k);
    std::ranges::transform(layer.routing.gather, prepared.source.begin(),
                           [top_k](std::int32_t slot) { return slot / top_k; });
  } else {
    std::iota(prepared.source.begin(), prepared.source.end(), 0);
  }
  product.source = prepared.source;
  product.offsets = prepared.offsets;
  product.k = extent(what.summed, sizes);
  product.n = width_of(what.made, sizes);
  product.weights = [id, problem = layer.problem](std::int64_t group) {
    return right_operand(id, *problem, group);
  };
  product.right_lies = what.right_lies;
  product.accumulator = accumulator_of<A>(id, layer);
  product.unit_roundoff = layer.contract->product_unit_roundoff();
  product.engine = layer.engine;
  if (layer.fault.field == what.made) product.fault = layer.fault;
  return prepared;
}

template <class A>
void keep_rows(PreparedProduct<A>& prepared, std::span<const std::int64_t> rows) {
  std::vector<std::int32_t> source;
  for (const auto r : rows) source.push_back(prepared.source[static_cast<std::size_t>(r)]);
  for (auto& offset : prepared.offsets) offset = std::ranges::lower_bound(rows, offset) - rows.begin();
  prepared.source = std::move(source);
  prepared.product.source = prepared.source;
}

template <class A>
Values<A> product_values(ProductId id, const Layer& layer, const Values<A>* left) {
  const auto prepared = prepare_product<A>(id, layer, left);
  auto values = planted_product(prepared.product);
  if (left != nullptr) add_common_error(prepared.product, values);
  return values;
}

template PreparedProduct<Bounded> prepare_product<Bounded>(ProductId, const Layer&, const Values<Bounded>*);
template PreparedProduct<Predicted> prepare_product<Predicted>(ProductId, const Layer&,
                                                               const Values<Predicted>*);
template void keep_rows<Bounded>(PreparedProduct<Bounded>&, std::span<const std::int64_t>);
template void keep_rows<Predicted>(PreparedProduct<Predicted>&, std::span<const std::int64_t>);
template Values<Bounded> product_values<Bounded>(ProductId, const Layer&, const Values<Bounded>*);
template Values<Predicted> product_values<Predicted>(ProductId, const Layer&, const Values<Predicted>*);

}  // namespace assay
