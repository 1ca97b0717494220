#include "reference_cpu/causes/row_sums.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <Eigen/Dense>

#include "reference_cpu/causes/k_stretches.h"
#include "reference_cpu/causes/linear_fit.h"
#include "reference_cpu/product/weight_gradient.h"

namespace assay {
namespace {

constexpr std::int64_t kMostRows = 160;  // unknowns of a fit
constexpr std::int64_t kNeighbours = 2;  // rows tried on each side
constexpr std::int64_t kPerUnknown = 4;  // elements for each unknown
constexpr std::int64_t kLeastElements = 256;
constexpr std::int64_t kSolvedColumns = 32;  // of the right operand, to tell its rows apart
constexpr double kFound = 0.05;  // a row is found whose distance is this share of its length, or less

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// At most `most` of the indices, evenly.
std::vector<std::int64_t> thinned(const std::vector<std::int64_t>& all, std::int64_t most) {
  const auto stride = index(std::max<std::int64_t>(1, (std::ssize(all) + most - 1) / most));
  std::vector<std::int64_t> some;
  for (std::size_t i = 0; i < all.size(); i += stride) some.push_back(all[i]);
  return some;
}

/// The rows of a window that belong to a matrix, counted within it.
std::vector<std::int64_t> rows_within(const Window& window, std::int64_t matrix, std::int64_t height) {
  std::vector<std::int64_t> rows;
  for (const auto r : window.rows)
    if (r / height == matrix) rows.push_back(r % height);
  return rows;
}

}  // namespace

RowSums::RowSums(const Evidence& evidence)
    : evidence_(&evidence),
      id_(*product_of(evidence.field)),
      matrices_(row(id_).summed == Dim::S ? evidence.layer->config().num_experts : 1),
      height_(evidence.rows / matrices_),
      left_(evidence.input(row(id_).left)) {
  const Field right = row(id_).right;
  right_ = given(right) ? lift<Predicted>(evidence.layer->problem->input) : evidence.input(right);
  const FieldSet& previous = evidence.layer->problem->previous;
  if (previous.has(evidence.field)) before_ = StoredSpan(previous.at(evidence.field), DType::Float32);
}

RowTerm RowSums::term(std::int64_t left) const {
  const bool tokens = row(row(id_).right).rows == RowsAre::Tokens && row(id_).summed == Dim::S;
  const Layer& layer = *evidence_->layer;
  return {left, tokens ? layer.routing.gather[index(left)] / layer.config().top_k : left, 1.0f};
}

RowTerms RowSums::own(std::int64_t matrix) const {
  RowTerms terms;
  for (const auto r : summed_rows(id_, *evidence_->layer, matrix)) terms.push_back(term(r));
  return terms;
}

std::optional<RowTerm> RowSums::neighbour(std::int64_t matrix, std::int64_t after) const {
  if (row(id_).summed != Dim::S) return std::nullopt;
  const auto& offsets = evidence_->layer->routing.offsets;
  const std::int64_t at = (after < 0 ? offsets[index(matrix)] : offsets[index(matrix + 1)]) + after;
  return at < 0 || at >= left_rows() ? std::nullopt : std::optional(term(at));
}

std::vector<float> RowSums::part(std::span<const std::int64_t> rows, std::span<const std::int64_t> columns,
                                 const RowTerms& terms, bool bf16_every_term) const {
  const auto k = terms.size();
  Values<Predicted> a(rows.size() * k);
  Values<Predicted> b(columns.size() * k);
  for (std::size_t t = 0; t < k; ++t) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      a[i * k + t] = left_[index(terms[t].left * height_ + rows[i])];
      a[i * k + t].value *= terms[t].factor;
    }
    for (std::size_t c = 0; c < columns.size(); ++c)
      b[c * k + t] = right_[index(terms[t].right * width() + columns[c])];
  }
  std::vector<float> out;
  if (bf16_every_term) {
    for (std::size_t i = 0; i < rows.size(); ++i)
      for (std::size_t c = 0; c < columns.size(); ++c) {
        Bf16 sum{};
        for (std::size_t t = 0; t < k; ++t)
          sum = round_to_bf16(to_float(sum) + a[i * k + t].value * b[c * k + t].value);
        out.push_back(to_float(sum));
      }
    return out;
  }
  std::vector<std::int32_t> source(rows.size());
  std::iota(source.begin(), source.end(), 0);
  const std::vector<std::int64_t> one_group = {0, std::ssize(rows)};
  GroupedProduct<PredictedValue> product;
  product.left = a;
  product.source = source;
  product.offsets = one_group;
  product.k = static_cast<std::int64_t>(k);
  product.n = std::ssize(columns);
  product.right = b;
  product.accumulator = evidence_->layer->accumulators[id_];
  product.engine = evidence_->layer->engine;
  for (const auto& x : grouped_product(product)) out.push_back(x.value);
  return out;
}

Stored RowSums::kept(float sum, std::size_t at) const {
  const PrecisionContract& contract = *evidence_->layer->contract;
  const bool added = !before_.empty();
  if (!added && contract.weight_gradients == Store::Bf16) return evidence_->stored(sum);
  const float product = stored(PredictedValue{sum, false}, contract.weight_products).value;
  return evidence_->stored(added ? product + before_.value(at) : product);
}

std::vector<Stored> RowSums::bits(const Window& window, const TermsOfMatrix& terms,
                                  bool bf16_every_term) const {
  std::vector<Stored> all;
  all.reserve(window.size());
  for (std::size_t first = 0; first < window.rows.size();) {  // rows ascend: one matrix after the other
    const std::int64_t matrix = window.rows[first] / height_;
    std::vector<std::int64_t> rows;
    for (; first < window.rows.size() && window.rows[first] / height_ == matrix; ++first)
      rows.push_back(window.rows[first] % height_);
    const auto sums = part(rows, window.columns, terms(matrix), bf16_every_term);
    for (std::size_t i = 0; i < sums.size(); ++i)
      all.push_back(kept(sums[i], assay::index(*evidence_, matrix * height_ + rows[i / window.columns.size()],
                                               window.columns[i % window.columns.size()])));
  }
  return all;
}

namespace {

/// The element of a matrix that the candidate has less the right answer; nothing where one is not finite.
std::optional<double> error_at(const RowSums& sums, std::int64_t matrix, std::int64_t i, std::int64_t c) {
  const auto at = index(sums.evidence(), matrix * sums.height() + i, c);
  const Stored out = sums.evidence().out[at];
  const float right = sums.evidence().plain[at].value;
  if (!out.finite() || !std::isfinite(right)) return std::nullopt;
  return static_cast<double>(out.value) - right;
}

/// One matrix: its own rows, `step` of them an unknown, and its neighbours.
std::optional<FittedRows> fit_matrix(const RowSums& sums, const Window& window, std::int64_t matrix) {
  RowTerms terms = sums.own(matrix);
  const std::int64_t own = std::ssize(terms);
  const std::int64_t step = std::max<std::int64_t>(1, (own + kMostRows - 1) / kMostRows);
  std::int64_t after = 0;
  std::int64_t before = 0;
  while (after < kNeighbours && sums.neighbour(matrix, after))
    terms.push_back(*sums.neighbour(matrix, after++));
  while (before < kNeighbours && sums.neighbour(matrix, -1 - before))
    terms.push_back(*sums.neighbour(matrix, -1 - before++));
  const std::int64_t of_own = (own + step - 1) / step;
  const std::int64_t unknowns = of_own + after + before;
  if (unknowns == 0) return std::nullopt;

  const std::int64_t wanted = std::max(kLeastElements, kPerUnknown * unknowns);
  const auto columns = thinned(window.columns, 64);
  const auto rows =
      thinned(rows_within(window, matrix, sums.height()),
              std::max<std::int64_t>(1, (wanted + std::ssize(columns) - 1) / std::ssize(columns)));
  std::vector<double> errors;
  std::vector<double> parts;  // [elements, unknowns], each over the root of the sum of its squared terms
  for (const auto i : rows)
    for (const auto c : columns) {
      const auto error = error_at(sums, matrix, i, c);
      if (!error) continue;
      std::vector<double> part(index(unknowns));
      double squares = 0.0;
      for (std::int64_t t = 0; t < std::ssize(terms); ++t) {
        const RowTerm& term = terms[index(t)];
        const double x = sums.left(term.left, i) * sums.right(term.right, c);
        part[index(t < own ? t / step : of_own + t - own)] += x;
        squares += x * x;
      }
      if (squares == 0.0) continue;
      const double scale = std::sqrt(squares);
      errors.push_back(*error / scale);
      for (const double x : part) parts.push_back(x / scale);
    }
  if (std::ssize(errors) < 2 * unknowns + 8) return std::nullopt;
  using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::MatrixXd known = Eigen::Map<const RowMajor>(parts.data(), std::ssize(errors), unknowns);
  const LinearFit found =
      fit_parts(known, Eigen::Map<const Eigen::VectorXd>(errors.data(), std::ssize(errors)));
  const auto told = [&](std::int64_t unknown) {
    const double share = found.share[unknown];
    return std::fabs(share) > kDeviations * found.deviation[unknown] && std::fabs(share) > 1e-3 ? share : 0.0;
  };
  FittedRows fitted{matrix, {}, {}, {}};
  for (std::int64_t t = 0; t < own; ++t) fitted.own.push_back(told(t / step));
  for (std::int64_t t = 0; t < after; ++t) fitted.after.push_back(told(of_own + t));
  for (std::int64_t t = 0; t < before; ++t) fitted.before.push_back(told(of_own + after + t));
  return fitted;
}

}  // namespace

std::vector<FittedRows> fit_rows(const RowSums& sums, const ErrorPlace& place, std::size_t most) {
  std::vector<std::pair<std::size_t, std::int64_t>> candidates;
  for (std::int64_t m = 0; m < sums.matrices(); ++m)
    if (!rows_within(place.window, m, sums.height()).empty()) candidates.emplace_back(sums.own(m).size(), m);
  std::ranges::stable_sort(candidates, std::ranges::greater{}, [](const auto& one) { return one.first; });
  std::vector<FittedRows> all;
  for (const auto& [rows, matrix] : candidates) {
    if (all.size() == most) break;
    auto fitted = fit_matrix(sums, place.window, matrix);
    const auto told = [](double share) { return share != 0.0; };
    if (fitted && (std::ranges::any_of(fitted->own, told) || std::ranges::any_of(fitted->after, told) ||
                   std::ranges::any_of(fitted->before, told)))
      all.push_back(std::move(*fitted));
  }
  return all;
}

/// out = A^T B: with a third more rows of the matrix than terms, B = (A A^T)^-1 A out; with fewer, the
/// rounding of out is blown up.
std::vector<std::int64_t> rows_behind(const RowSums& sums, const ErrorPlace& place, std::int64_t matrix) {
  const RowTerms terms = sums.own(matrix);
  const std::int64_t n = std::ssize(terms);
  const std::int64_t height = sums.height();
  const auto columns = thinned(place.window.columns, kSolvedColumns);
  if (n == 0 || 4 * n > 3 * height || n > kMostRows) return {};
  Eigen::MatrixXd a(n, height);
  Eigen::MatrixXd out(height, std::ssize(columns));
  for (std::int64_t i = 0; i < height; ++i) {
    for (std::int64_t t = 0; t < n; ++t) a(t, i) = sums.left(terms[index(t)].left, i);
    for (std::int64_t c = 0; c < std::ssize(columns); ++c) {
      const auto at = index(sums.evidence(), matrix * height + i, columns[index(c)]);
      if (!is_finite(sums.evidence().out[at])) return {};
      out(i, c) = to_float(sums.evidence().out[at]);
    }
  }
  const Eigen::MatrixXd solved = (a * a.transpose()).ldlt().solve(a * out);
  std::vector<std::int64_t> found;
  for (std::int64_t t = 0; t < n; ++t) {
    double least = std::numeric_limits<double>::infinity();
    std::int64_t nearest = -1;
    for (std::int64_t r = 0; r < sums.right_rows(); ++r) {
      double distance = 0.0;
      double length = 0.0;
      for (std::int64_t c = 0; c < std::ssize(columns); ++c) {
        const double x = sums.right(r, columns[index(c)]);
        distance += (solved(t, c) - x) * (solved(t, c) - x);
        length += x * x;
      }
      if (distance < least && distance <= kFound * length) {
        least = distance;
        nearest = r;
      }
    }
    if (nearest < 0) return {};
    found.push_back(nearest);
  }
  return found;
}

}  // namespace assay
