// Stretches of K that are missing, doubled, scaled or stale: the error is regressed on the contributions of
// blocks of K.
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <Eigen/Dense>

#include "reference_cpu/causes/causes_product.h"

namespace assay {
namespace {

constexpr std::int64_t kMostBlocks = 128;
constexpr std::int64_t kFinestBlock = 8;
constexpr std::int64_t kElementwise = 160;  // at most so many elements of K are fitted one by one
constexpr std::int64_t kSpareElements =
    16;  // more elements of the output than unknowns, so that deviations mean something
constexpr double kFitWork = 1e8;     // multiply-adds of the normal equations
constexpr double kDeviations = 6.0;  // a block's coefficient counts beyond so many of its standard deviations
constexpr double kNearWhole = 0.25;  // a coefficient so near to 1 or -1 is taken for it
constexpr std::size_t kStaleTried = 3;

using Operands = std::shared_ptr<const ProductOperands>;

/// Elements of the sample with what the fit needs: the error before rounding is known up to the output's
/// rounding.
struct Samples {
  std::vector<std::int64_t> row, column;
  std::vector<ExpertMatrix> weights;  // [elements]
  Eigen::VectorXd error;              // out - reference, over the element's scale
  Eigen::VectorXd scale;  // sqrt(sum of squared terms): puts large and small rows and columns on one footing
};

double term(const ProductOperands& operands, const Samples& s, std::size_t i, std::int64_t k) {
  const auto weight = s.weights[i].values[static_cast<std::size_t>(s.column[i] * operands.k + k)];
  return static_cast<double>(operands.left_of(s.row[i])[static_cast<std::size_t>(k)].value) *
         to_float(weight);
}

Samples take_samples(const Evidence& evidence, const ProductOperands& operands, const Window& window,
                     std::size_t most) {
  Samples s;
  const std::size_t stride =
      std::max<std::size_t>(1, window.size() / std::max<std::size_t>(1, most)) | 1;  // odd: meets all columns
  std::vector<double> error, scale;
  std::int64_t expert = -1;
  ExpertMatrix weights;
  for (std::size_t at = 0; at < window.size(); at += stride) {
    const auto r = window.rows[at / window.columns.size()], c = window.columns[at % window.columns.size()];
    const auto index = static_cast<std::size_t>(r * evidence.width + c);
    if (!is_finite(evidence.out[index]) || !std::isfinite(evidence.plain[index].value)) continue;
    if (operands.expert[static_cast<std::size_t>(r)] != expert) {
      expert = operands.expert[static_cast<std::size_t>(r)];
      weights = operands.weights(expert);
    }
    s.row.push_back(r);
    s.column.push_back(c);
    s.weights.push_back(weights);
    double squares = 0.0;
    for (std::int64_t k = 0; k < operands.k; ++k) {
      const double p = term(operands, s, s.row.size() - 1, k);
      squares += p * p;
    }
    if (squares == 0.0) {
      s.row.pop_back();
      s.column.pop_back();
      s.weights.pop_back();
      continue;
    }
    scale.push_back(std::sqrt(squares));
    error.push_back((static_cast<double>(to_float(evidence.out[index])) - evidence.plain[index].value) /
                    scale.back());
  }
  s.error = Eigen::Map<Eigen::VectorXd>(error.data(), static_cast<Eigen::Index>(error.size()));
  s.scale = Eigen::Map<Eigen::VectorXd>(scale.data(), static_cast<Eigen::Index>(scale.size()));
  return s;
}

struct Stretch {
  std::int64_t begin = 0, end = 0;
  double missing = 0.0;    // fitted share that is missing: 1 dropped, -1 doubled
  double deviation = 0.0;  // of it
};

/// error = - sum_b missing_b P_b by least squares over all stretches at once: contributions of one sign are
/// correlated.
void fit(const ProductOperands& operands, const Samples& s, std::vector<Stretch>& stretches) {
  const auto n = s.error.size(), unknowns = static_cast<Eigen::Index>(stretches.size());
  Eigen::MatrixXd parts(n, unknowns);
#pragma omp parallel for schedule(static)
  for (Eigen::Index i = 0; i < n; ++i)
    for (Eigen::Index b = 0; b < unknowns; ++b) {
      double sum = 0.0;
      const auto& stretch = stretches[static_cast<std::size_t>(b)];
      for (std::int64_t k = stretch.begin; k < stretch.end; ++k)
        sum += term(operands, s, static_cast<std::size_t>(i), k);
      parts(i, b) = -sum / s.scale[i];
    }
  Eigen::MatrixXd normal = parts.transpose() * parts;
  normal.diagonal().array() += 1e-12 * normal.trace() / static_cast<double>(unknowns) + 1e-300;
  const Eigen::LDLT<Eigen::MatrixXd> solver(normal);
  const Eigen::VectorXd missing = solver.solve(parts.transpose() * s.error);
  const double variance = (s.error - parts * missing).squaredNorm() /
                          static_cast<double>(std::max<Eigen::Index>(1, n - unknowns));
  const Eigen::MatrixXd inverse = solver.solve(Eigen::MatrixXd::Identity(unknowns, unknowns));
  for (Eigen::Index b = 0; b < unknowns; ++b) {
    stretches[static_cast<std::size_t>(b)].missing = missing[b];
    stretches[static_cast<std::size_t>(b)].deviation = std::sqrt(std::max(0.0, variance * inverse(b, b)));
  }
}

bool matters(const Stretch& s) {
  return std::fabs(s.missing) > kDeviations * s.deviation && std::fabs(s.missing) > 1e-5;
}
bool near(double x, double to) { return std::fabs(x - to) < kNearWhole; }
bool alike(const Stretch& a, const Stretch& b) {
  for (const double whole : {1.0, -1.0})
    if (near(a.missing, whole) != near(b.missing, whole)) return false;
  return near(a.missing, b.missing) || std::fabs(a.missing - b.missing) < 3.0 * (a.deviation + b.deviation);
}

/// Neighbours with like coefficients become one stretch.
std::vector<Stretch> joined(const std::vector<Stretch>& fine) {
  std::vector<Stretch> runs;
  for (const auto& one : fine) {
    if (!matters(one)) continue;
    if (!runs.empty() && runs.back().end == one.begin && alike(runs.back(), one)) {
      auto& run = runs.back();
      const double length = static_cast<double>(run.end - run.begin),
                   more = static_cast<double>(one.end - one.begin);
      run.missing = (run.missing * length + one.missing * more) / (length + more);
      run.deviation = std::max(run.deviation, one.deviation);
      run.end = one.end;
    } else {
      runs.push_back(one);
    }
  }
  return runs;
}

/// Stretches of K with an error of their own, by blocks and, where few elements of K come into question, by
/// elements: the two readings of the same data. A part of a block that is missing shows in the first as a
/// scaled block.
std::vector<std::vector<Stretch>> find_stretches(const ProductOperands& operands, const Samples& samples) {
  const std::int64_t k = operands.k, n = samples.error.size();
  std::vector<std::vector<Stretch>> readings;
  const auto read = [&](const std::vector<Stretch>& stretches) {
    auto runs = joined(stretches);
    const bool whole =
        runs.size() == 1 && runs.front().begin == 0 && runs.front().end == k;  // a factor, not a stretch
    if (!runs.empty() && !whole) readings.push_back(std::move(runs));
  };
  std::vector<Stretch> fine;
  const auto add = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = std::max<std::int64_t>(begin, fine.empty() ? 0 : fine.back().end);
         i < std::min(end, k); ++i)
      fine.push_back({i, i + 1});
  };
  const std::int64_t most = std::min(kMostBlocks, n / 4);
  if (most >= 2) {
    std::int64_t block = kFinestBlock;
    while ((k + block - 1) / block > most) block *= 2;
    std::vector<Stretch> blocks;
    for (std::int64_t begin = 0; begin < k; begin += block)
      blocks.push_back({begin, std::min(k, begin + block)});
    fit(operands, samples, blocks);
    read(blocks);
    // The inside of a long run is taken as found; its two ends are looked at element by element.
    for (const auto& run : joined(blocks)) {
      const bool long_run = run.end - run.begin > 4 * block;
      add(run.begin, long_run ? run.begin + block : run.end);
      if (!long_run) continue;
      fine.push_back({run.begin + block, run.end - block});
      add(run.end - block, run.end);
    }
  }
  if (fine.empty() && k <= kElementwise) add(0, k);
  const auto unknowns = static_cast<std::int64_t>(fine.size());
  if (unknowns > 0 && unknowns <= kElementwise && unknowns + kSpareElements <= n) {
    fit(operands, samples, fine);
    read(fine);
  }
  return readings;
}

std::string of_k(const std::vector<Stretch>& runs, std::int64_t k) {
  const auto one = [&](const Stretch& s) {
    const std::int64_t length = s.end - s.begin;
    if (s.end == k)
      return length == 1 ? std::string("the last element of K") : fmt::format("the last {} of K", length);
    if (s.begin == 0)
      return length == 1 ? std::string("the first element of K") : fmt::format("the first {} of K", length);
    return length == 1 ? fmt::format("element {} of K", s.begin)
                       : fmt::format("K {} to {}", s.begin, s.end - 1);
  };
  if (runs.size() == 1) return one(runs.front());
  std::int64_t total = 0;
  for (const auto& s : runs) total += s.end - s.begin;
  return fmt::format("{} elements of K in {} stretches, the first of them {},", total, runs.size(),
                     one(runs.front()));
}

bool singular(const std::vector<Stretch>& runs) {
  return runs.size() == 1 && runs.front().end - runs.front().begin == 1;
}

Proposal scaled_stretches(std::string_view id, std::string sentence, const Operands& operands,
                          std::vector<Stretch> runs, std::optional<double> factor) {
  return {id, std::move(sentence), [operands, runs = std::move(runs), factor](const Window& window) {
            ProductChange change;
            change.left = [&](std::int64_t, std::span<PredictedValue> left) {
              for (const auto& s : runs)
                for (std::int64_t k = s.begin; k < s.end; ++k) {
                  auto& x = left[static_cast<std::size_t>(k)].value;
                  x = static_cast<float>(x * factor.value_or(1.0 - s.missing));
                }
            };
            return stored_bits(product(*operands, window, change));
          }};
}

/// Which operand a stale stretch may hold instead of its own: offsets from where it should be read.
struct Stale {
  std::string_view what;
  std::int64_t left_k = 0, left_row = 0, weight_k = 0, weight_column = 0, expert = 0;
};

std::vector<Stale> stale_operands(const ProductOperands& operands, std::int64_t length) {
  std::vector<Stale> all;
  std::vector<std::int64_t> shifts = {length};
  for (const std::int64_t tile : {8, 16, 32, 64, 128})
    if (tile != length) shifts.push_back(tile);
  for (const auto shift : shifts)
    for (const auto by : {-shift, shift}) {
      all.push_back({"both operands", by, 0, by});
      all.push_back({"the left operand", by});
      all.push_back({"the weights", 0, 0, by});
    }
  for (const std::int64_t away : {-1, 1}) {
    if (operands.left_rows > 1)
      all.push_back({away < 0 ? "the input of the row before" : "the input of the next row", 0, away});
    if (operands.n > 1)
      all.push_back(
          {away < 0 ? "the weights of the column before" : "the weights of the next column", 0, 0, 0, away});
    if (operands.experts > 1)
      all.push_back({away < 0 ? "the weights of the expert before" : "the weights of the next expert", 0, 0,
                     0, 0, away});
  }
  // Reading on past the end of a row meets the start of the next.
  all.push_back({"the start of the next row's input", -(operands.k - length), 1});
  return all;
}

std::int64_t wrapped(std::int64_t i, std::int64_t n) { return ((i % n) + n) % n; }

/// Whether a stretch shifted by `by` stays inside K.
bool inside(const Stretch& s, std::int64_t by, std::int64_t k) {
  return s.begin + by >= 0 && s.end + by <= k;
}

struct StaleReader {
  Operands operands;
  Stretch stretch;
  Stale stale;

  PredictedValue left(std::int64_t row, std::int64_t k) const {
    const auto source =
        wrapped(operands->source[static_cast<std::size_t>(row)] + stale.left_row, operands->left_rows);
    return operands->left[static_cast<std::size_t>(source * operands->k + k + stale.left_k)];
  }
  Bf16 weight(std::span<const Bf16> whole, std::int64_t column, std::int64_t k) const {
    const auto from = wrapped(column + stale.weight_column, operands->n);
    return whole[static_cast<std::size_t>(from * operands->k + k + stale.weight_k)];
  }
  std::int64_t expert(std::int64_t of) const { return wrapped(of + stale.expert, operands->experts); }
};

/// Residual of the linear model in which the stretch holds other operands.
double residual(const StaleReader& reader, const Samples& samples) {
  double sum = 0.0;
  std::int64_t expert = -1;
  ExpertMatrix other;
  for (std::size_t i = 0; i < samples.row.size(); ++i) {
    const auto own = reader.operands->expert[static_cast<std::size_t>(samples.row[i])];
    if (reader.stale.expert != 0 && own != expert) {
      expert = own;
      other = reader.operands->weights(reader.expert(own));
    }
    const auto whole = reader.stale.expert != 0 ? other.values : samples.weights[i].values;
    double change = 0.0;
    for (std::int64_t k = reader.stretch.begin; k < reader.stretch.end; ++k)
      change += static_cast<double>(reader.left(samples.row[i], k).value) *
                    to_float(reader.weight(whole, samples.column[i], k)) -
                term(*reader.operands, samples, i, k);
    const double left =
        samples.error[static_cast<Eigen::Index>(i)] - change / samples.scale[static_cast<Eigen::Index>(i)];
    sum += left * left;
  }
  return sum;
}

Proposal stale_stretch(const StaleReader& reader) {
  const Stale& stale = reader.stale;
  const auto shift = stale.left_k != 0 ? stale.left_k : stale.weight_k;
  std::string what(stale.what);
  const bool one = reader.stretch.end - reader.stretch.begin == 1;
  if (stale.left_row == 0 && shift != 0)
    what += one ? fmt::format(" of element {} of K", reader.stretch.begin + shift)
                : fmt::format(" of K {} to {}", reader.stretch.begin + shift, reader.stretch.end + shift - 1);
  return {"k_stale",
          fmt::format("{} {} {}", of_k({reader.stretch}, reader.operands->k), one ? "uses" : "use", what),
          [reader](const Window& window) {
            ProductChange change;
            change.left = [&](std::int64_t row, std::span<PredictedValue> left) {
              for (std::int64_t k = reader.stretch.begin; k < reader.stretch.end; ++k)
                left[static_cast<std::size_t>(k)] = reader.left(row, k);
            };
            change.weight = [&](std::span<const Bf16> whole, std::int64_t expert, std::int64_t column,
                                std::span<Bf16> weight) {
              const ExpertMatrix other = reader.stale.expert == 0
                                             ? ExpertMatrix{whole, nullptr}
                                             : reader.operands->weights(reader.expert(expert));
              for (std::int64_t k = reader.stretch.begin; k < reader.stretch.end; ++k)
                weight[static_cast<std::size_t>(k)] = reader.weight(other.values, column, k);
            };
            return stored_bits(product(*reader.operands, window, change));
          }};
}

void propose_stale(const Operands& operands, const Samples& samples, const Stretch& stretch,
                   std::vector<Proposal>& all) {
  std::vector<std::pair<double, StaleReader>> tried;
  for (const auto& stale : stale_operands(*operands, stretch.end - stretch.begin)) {
    const bool past_the_end = stale.left_row != 0 && stale.left_k != 0;
    if (!inside(stretch, stale.left_k, operands->k) || !inside(stretch, stale.weight_k, operands->k) ||
        (past_the_end && stretch.end != operands->k))
      continue;
    const StaleReader reader{operands, stretch, stale};
    tried.emplace_back(residual(reader, samples), reader);
  }
  std::ranges::stable_sort(tried, {}, [](const auto& one) { return one.first; });
  for (std::size_t i = 0; i < std::min(kStaleTried, tried.size()); ++i)
    all.push_back(stale_stretch(tried[i].second));
}

void propose_runs(const Operands& operands, const Samples& samples, const std::vector<Stretch>& runs,
                  std::vector<Proposal>& all) {
  std::vector<Stretch> dropped, doubled;
  for (const auto& run : runs) {
    if (near(run.missing, 1.0)) dropped.push_back(run);
    if (near(run.missing, -1.0)) doubled.push_back(run);
  }
  const std::int64_t k = operands->k;
  const auto is_are = [](const std::vector<Stretch>& which) { return singular(which) ? "is" : "are"; };
  if (!dropped.empty())
    all.push_back(scaled_stretches("k_dropped",
                                   fmt::format("{} {} missing", of_k(dropped, k), is_are(dropped)), operands,
                                   dropped, 0.0));
  if (!doubled.empty())
    all.push_back(scaled_stretches("k_doubled",
                                   fmt::format("{} {} added twice", of_k(doubled, k), is_are(doubled)),
                                   operands, doubled, 2.0));
  // Neither 1 nor -1, as far as the fit can tell.
  const auto is_not = [&](double whole) {
    return std::fabs(runs.front().missing - whole) > kDeviations * runs.front().deviation + 0.01;
  };
  if (runs.size() == 1 && is_not(1.0) && is_not(-1.0))
    for (const double factor : likely_factors(1.0 - runs.front().missing))
      all.push_back(scaled_stretches("k_scaled",
                                     fmt::format("{} {} {:.6g} times what {} should be", of_k(runs, k),
                                                 is_are(runs), factor, singular(runs) ? "it" : "they"),
                                     operands, runs, factor));
  for (std::size_t i = 0; i < std::min<std::size_t>(2, dropped.size()); ++i)
    propose_stale(operands, samples, dropped[i], all);
}

}  // namespace

std::vector<Proposal> propose_k_blocks(const Evidence& evidence, const Place& place) {
  const auto operands = std::make_shared<const ProductOperands>(operands_of(evidence));
  const std::int64_t blocks = std::min(kMostBlocks, (operands->k + kFinestBlock - 1) / kFinestBlock);
  const auto samples =
      take_samples(evidence, *operands, place.sample,
                   static_cast<std::size_t>(kFitWork / static_cast<double>(blocks * blocks + operands->k)));
  std::vector<Proposal> all;
  if (samples.error.size() < 2) return all;
  for (const auto& runs : find_stretches(*operands, samples)) propose_runs(operands, samples, runs, all);
  return all;
}

}  // namespace assay
