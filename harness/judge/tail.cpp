#include "harness/judge/tail.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace assay {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kBets = 6;

double log_average_of_bets(std::span<const double> logs) {
  const double top = *std::ranges::max_element(logs);
  if (!std::isfinite(top)) return top;
  double sum = 0.0;
  for (const double x : logs) sum += std::exp(x - top);
  return top + std::log(sum / static_cast<double>(logs.size()));
}

}  // namespace

double log_chance_of_sum(double sum, double expected, double largest) {
  if (!(sum > expected)) return 0.0;
  if (!(expected > 0.0)) return -kInfinity;
  const double x = sum / largest;
  const double m = expected / largest;
  return -(x * std::log(x / m) - x + m);
}

double limit_of_sum(double expected, double log_share, double largest) {
  if (!(expected > 0.0)) return 0.0;
  if (!std::isfinite(expected)) return kInfinity;
  double low = expected;
  double high = expected + largest;
  while (log_chance_of_sum(high, expected, largest) > log_share) high = expected + 2.0 * (high - expected);
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (log_chance_of_sum(middle, expected, largest) > log_share ? low : high) = middle;
  }
  return high;
}

double log_chance_of_units(std::span<const Unit> units) {
  double logs[kBets] = {};
  for (const Unit& unit : units) {
    if (!(unit.expected > 0.0)) continue;
    const double ratio = unit.observed / unit.expected;
    double bet = 1.0;
    for (double& log : logs) {
      log += std::log1p(bet * (ratio - 1.0));
      bet *= 0.5;
    }
  }
  return std::min(0.0, -log_average_of_bets(logs));
}

double limit_of_units(std::size_t units, double log_share) {
  // The largest bet wins where all units agree: ratio^n / kBets = exp(-log_share).
  return units == 0
             ? kInfinity
             : std::exp((std::log(static_cast<double>(kBets)) - log_share) / static_cast<double>(units));
}

}  // namespace assay
