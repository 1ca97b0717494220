// Stretches of K that are missing, doubled, scaled or stale.
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "reference_cpu/causes/k_stretches.h"

namespace assay {
namespace {

constexpr std::size_t kStaleTried = 3;

using Operands = std::shared_ptr<const ProductOperands>;

Proposal scaled_stretches(std::string_view id, std::string sentence, const Operands& operands,
                          std::vector<KStretch> runs, std::optional<double> factor) {
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
  std::int64_t left_k = 0;
  std::int64_t left_row = 0;
  std::int64_t weight_k = 0;
  std::int64_t weight_column = 0;
  std::int64_t expert = 0;
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
bool inside(const KStretch& s, std::int64_t by, std::int64_t k) {
  return s.begin + by >= 0 && s.end + by <= k;
}

struct StaleReader {
  Operands operands;
  KStretch stretch;
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

void propose_stale(const Operands& operands, const Samples& samples, const KStretch& stretch,
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

void propose_runs(const Operands& operands, const Samples& samples, const std::vector<KStretch>& runs,
                  std::vector<Proposal>& all) {
  std::vector<KStretch> dropped;
  std::vector<KStretch> doubled;
  for (const auto& run : runs) {
    if (nearly(run.missing, 1.0)) dropped.push_back(run);
    if (nearly(run.missing, -1.0)) doubled.push_back(run);
  }
  const std::int64_t k = operands->k;
  const auto is_are = [](const std::vector<KStretch>& which) { return singular(which) ? "is" : "are"; };
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

std::vector<Proposal> propose_k_blocks(const Evidence& evidence, const ErrorPlace& place) {
  const auto operands = std::make_shared<const ProductOperands>(operands_of(evidence));
  const auto samples = take_samples(evidence, *operands, place.sample);
  std::vector<Proposal> all;
  if (samples.error.size() < 2) return all;
  const KReadings found = find_stretches(*operands, samples);
  for (const auto& runs : found.readings) propose_runs(operands, samples, runs, all);
  for (Proposal& proposal : all)
    for (const KStretch& block : found.blocks)
      proposal.k_blocks.push_back({block.begin, block.end, block.missing, block.deviation});
  return all;
}

}  // namespace assay
