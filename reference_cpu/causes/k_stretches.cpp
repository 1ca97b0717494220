#include "reference_cpu/causes/k_stretches.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "reference_cpu/causes/linear_fit.h"

namespace assay {
namespace {

constexpr std::int64_t kMostBlocks = 128;
constexpr std::int64_t kFinestBlock = 8;
constexpr std::int64_t kElementwise = 160;  // at most so many elements of K are fitted one by one
constexpr std::int64_t kSpareElements =
    16;  // more elements of the output than unknowns, so that deviations mean something
constexpr double kFitWork = 1e8;     // multiply-adds of the normal equations
constexpr double kNearWhole = 0.25;  // a coefficient so near to 1 or -1 is taken for it

/// error = - sum_b missing_b P_b.
void fit(const ProductOperands& operands, const Samples& s, std::vector<KStretch>& stretches) {
  const auto n = s.error.size();
  const auto unknowns = static_cast<Eigen::Index>(stretches.size());
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
  const LinearFit found = fit_parts(parts, s.error);
  for (Eigen::Index b = 0; b < unknowns; ++b) {
    stretches[static_cast<std::size_t>(b)].missing = found.share[b];
    stretches[static_cast<std::size_t>(b)].deviation = found.deviation[b];
  }
}

bool matters(const KStretch& s) {
  return std::fabs(s.missing) > kDeviations * s.deviation && std::fabs(s.missing) > 1e-5;
}
bool alike(const KStretch& a, const KStretch& b) {
  for (const double whole : {1.0, -1.0})
    if (nearly(a.missing, whole) != nearly(b.missing, whole)) return false;
  return nearly(a.missing, b.missing) || std::fabs(a.missing - b.missing) < 3.0 * (a.deviation + b.deviation);
}

/// Neighbours with like coefficients become one stretch.
std::vector<KStretch> joined(const std::vector<KStretch>& fine) {
  std::vector<KStretch> runs;
  for (const auto& one : fine) {
    if (!matters(one)) continue;
    if (!runs.empty() && runs.back().end == one.begin && alike(runs.back(), one)) {
      auto& run = runs.back();
      const double length = static_cast<double>(run.end - run.begin);
      const double more = static_cast<double>(one.end - one.begin);
      run.missing = (run.missing * length + one.missing * more) / (length + more);
      run.deviation = std::max(run.deviation, one.deviation);
      run.end = one.end;
    } else {
      runs.push_back(one);
    }
  }
  return runs;
}

}  // namespace

bool nearly(double missing, double other) { return std::fabs(missing - other) < kNearWhole; }

double term(const ProductOperands& operands, const Samples& s, std::size_t i, std::int64_t k) {
  const auto weight = s.weights[i].values[static_cast<std::size_t>(s.column[i] * operands.k + k)];
  return static_cast<double>(operands.left_of(s.row[i])[static_cast<std::size_t>(k)].value) *
         to_float(weight);
}

Samples take_samples(const Evidence& evidence, const ProductOperands& operands, const Window& window) {
  const std::int64_t blocks = std::min(kMostBlocks, (operands.k + kFinestBlock - 1) / kFinestBlock);
  const auto most = static_cast<std::size_t>(kFitWork / static_cast<double>(blocks * blocks + operands.k));
  Samples s;
  const std::size_t stride =
      std::max<std::size_t>(1, window.size() / std::max<std::size_t>(1, most)) | 1;  // odd: meets all columns
  std::vector<double> error;
  std::vector<double> scale;
  std::int64_t expert = -1;
  ExpertMatrix weights;
  for (std::size_t at = 0; at < window.size(); at += stride) {
    const auto r = window.rows[at / window.columns.size()];
    const auto c = window.columns[at % window.columns.size()];
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

KReadings find_stretches(const ProductOperands& operands, const Samples& samples) {
  const std::int64_t k = operands.k;
  const std::int64_t n = samples.error.size();
  KReadings found;
  const auto read = [&](const std::vector<KStretch>& stretches) {
    auto runs = joined(stretches);
    const bool whole =
        runs.size() == 1 && runs.front().begin == 0 && runs.front().end == k;  // a factor, not a stretch
    if (!runs.empty() && !whole) found.readings.push_back(std::move(runs));
  };
  std::vector<KStretch> fine;
  const auto add = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = std::max<std::int64_t>(begin, fine.empty() ? 0 : fine.back().end);
         i < std::min(end, k); ++i)
      fine.push_back({i, i + 1});
  };
  const std::int64_t most = std::min(kMostBlocks, n / 4);
  if (most >= 2) {
    std::int64_t block = kFinestBlock;
    while ((k + block - 1) / block > most) block *= 2;
    std::vector<KStretch>& blocks = found.blocks;
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
  return found;
}

std::string of_k(const std::vector<KStretch>& runs, std::int64_t k) {
  const auto one = [&](const KStretch& s) {
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

bool singular(const std::vector<KStretch>& runs) {
  return runs.size() == 1 && runs.front().end - runs.front().begin == 1;
}

}  // namespace assay
