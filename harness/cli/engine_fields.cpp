#include "harness/cli/engine_fields.h"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "harness/compare.h"
#include "harness/deviation.h"
#include "harness/large_vector.h"

namespace assay::cli {
namespace {

struct Example {
  std::string name;
  std::int64_t rows, width;
  LargeVector<Bf16> out;
  LargeVector<Interval> reference;
};

double pick(std::mt19937_64& random, std::initializer_list<double> choices) { return choices.begin()[random() % choices.size()]; }

/// A reference of the size that `exponent` draws, an interval and noise around it, and a stored value near it.
template <class Exponent>
Example drawn(const std::string& name, std::int64_t rows, std::int64_t width, std::uint64_t seed, Exponent exponent) {
  const auto count = static_cast<std::size_t>(rows * width);
  Example e{name, rows, width, LargeVector<Bf16>(count), LargeVector<Interval>(count)};
#pragma omp parallel for schedule(static)
  for (std::int64_t r = 0; r < rows; ++r) {
    std::mt19937_64 random(seed + static_cast<std::uint64_t>(r));
    for (std::int64_t c = 0; c < width; ++c) {
      const auto i = static_cast<std::size_t>(r * width + c);
      const double sign = random() % 2 == 0 ? 1.0 : -1.0;
      // Often next to a boundary between neighbours, or a power of two, where roundings and spacings change.
      const double fraction = pick(random, {static_cast<double>(random() >> 11) * 0x1p-53, 0x1p-8, 0x1p-8 + 0x1p-40, 0.0, 1.0 - 0x1p-9});
      const double ref = sign * std::ldexp(1.0 + fraction, exponent(random));
      const double delta = std::fabs(ref) * pick(random, {0.0, 0x1p-30, 0x1p-14, 0x1p-9});
      e.reference[i] = {ref, ref - delta, ref + delta, delta * pick(random, {0.0, 0.01, 0.3, 1.0})};
      Bf16 out = round_to_bf16(ref);
      if (random() % 50 == 0) out.bits = static_cast<std::uint16_t>(out.bits + pick(random, {1.0, 2.0, 5.0, 40.0, 3000.0}));
      e.out[i] = out;
    }
  }
  return e;
}

Example special() {
  Example e{"zeros, subnormal, largest, Inf and NaN on either side", 1, 0, {}, {}};
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const double values[] = {0.0, -0.0, 0x1p-134, 0x1p-133, 0x1.8p-133, 0x1p-126, -0x1p-127, 0x1p-117, 1.0, -1.0, 0x1.fep127, 0x1.ffp127, 0x1p128, 1e300, inf, -inf, nan, -nan};
  for (const double ref : values)
    for (const double out : values)
      for (const double delta : {0.0, 0x1p-133, 0x1p-8, 0x1p120, inf})
        for (const double noise : {0.0, 0x1p-140, 0x1p-10, nan}) {
          e.out.push_back(round_to_bf16(out));
          e.reference.push_back({ref, ref - delta, ref + delta, noise});
        }
  e.width = static_cast<std::int64_t>(e.out.size());
  return e;
}

struct Differences {
  const Example& example;
  std::int64_t found = 0;

  template <class Number>
  void check(const char* what, Number device, Number cpu, double tolerance = 0.0) {
    const bool equal = device == cpu || std::fabs(static_cast<double>(device) - static_cast<double>(cpu)) <= tolerance;
    if (equal) return;
    ++found;
    std::printf("  %s: %s is %.17g on the device, %.17g on the CPU\n", example.name.c_str(), what, static_cast<double>(device), static_cast<double>(cpu));
  }
};

/// The statistics' sums by the CPU's definition of one element, and how large their terms are.
struct CpuSums {
  ComparisonTotals totals;
  std::array<std::int64_t, kUlpBuckets> ulps{};
  double magnitude_of_excess = 0.0;
};

CpuSums sums_of(const Example& e) {
  CpuSums all;
  std::vector<CpuSums> rows(static_cast<std::size_t>(e.rows));
#pragma omp parallel for schedule(static)
  for (std::int64_t r = 0; r < e.rows; ++r) {
    CpuSums& sums = rows[static_cast<std::size_t>(r)];
    for (std::int64_t c = 0; c < e.width; ++c) {
      const auto i = static_cast<std::size_t>(r * e.width + c);
      const Deviation d = deviation(e.out[i], e.reference[i]);
      sums.totals.flipped += d.flipped > 0.0;
      sums.totals.flips_expected += d.flip_chance;
      sums.totals.excess += d.excess;
      sums.totals.excess_expected += d.excess_expected;
      sums.totals.z2 += d.z2;
      sums.totals.z2_of_rounding += d.z2_of_rounding;
      sums.totals.max_contract_ulps = std::max(sums.totals.max_contract_ulps, d.contract_ulps);
      sums.magnitude_of_excess += std::fabs(d.excess);
      const std::int64_t ulps = d.flipped > 0.0 ? std::abs(std::int64_t{ordinal(e.out[i])} - ordinal(round_to_bf16(e.reference[i].ref))) : 0;
      // 0, 1, 2, 3-4, 5-8, ...: the last bucket takes the rest.
      const int bucket = ulps == 0 ? 0 : std::min<int>(kUlpBuckets - 1, std::bit_width(static_cast<std::uint64_t>(ulps - 1)) + 1);
      ++sums.ulps[static_cast<std::size_t>(bucket)];
    }
  }
  for (const auto& row : rows) {
    all.totals.flipped += row.totals.flipped;
    all.totals.flips_expected += row.totals.flips_expected;
    all.totals.excess += row.totals.excess;
    all.totals.excess_expected += row.totals.excess_expected;
    all.totals.z2 += row.totals.z2;
    all.totals.z2_of_rounding += row.totals.z2_of_rounding;
    all.totals.max_contract_ulps = std::max(all.totals.max_contract_ulps, row.totals.max_contract_ulps);
    all.magnitude_of_excess += row.magnitude_of_excess;
    for (std::size_t b = 0; b < all.ulps.size(); ++b) all.ulps[b] += row.ulps[b];
  }
  return all;
}

double seconds_since(std::chrono::steady_clock::time_point start) { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); }

std::int64_t compare_one(const FieldComparer& by_device, const Example& e, bool timed) {
  const CompareContext context{Field::hidden_states, Sizes{{e.width, 1, 1, 1, true}, e.rows}, nullptr, Store::Bf16};
  auto start = std::chrono::steady_clock::now();
  const FieldComparison device = by_device(e.out, e.reference, e.rows);
  const double device_seconds = seconds_since(start);
  start = std::chrono::steady_clock::now();
  const Judgement cpu = compare_rounded(context, e.out, e.reference);
  if (timed)
    std::printf("  %s, %zu elements: device %.3f s, of which most is the way there; CPU %.3f s (the interval test)\n", e.name.c_str(), e.out.size(),
                device_seconds, seconds_since(start));
  Differences differences{e};
  differences.check("rejected", device.all.rejected, cpu.rejected);
  differences.check("non-finite", device.all.non_finite, cpu.non_finite);
  differences.check("mismatched", device.all.mismatched, cpu.mismatched);
  differences.check("the largest ratio", device.all.max_ratio, cpu.max_ratio);
  const CpuSums sums = sums_of(e);
  differences.check("flipped", device.all.flipped, sums.totals.flipped);
  differences.check("the largest error in contract ulps", device.all.max_contract_ulps, sums.totals.max_contract_ulps);
  for (std::size_t b = 0; b < sums.ulps.size(); ++b) differences.check("a bucket of ulps", device.ulps[b], sums.ulps[b]);
  // Either sum of n terms errs by at most gamma_n(2^-53) of the sum of their sizes, whatever its order.
  const double n = static_cast<double>(e.out.size()) * 0x1p-53, tolerance = 2.0 * n / (1.0 - n);
  differences.check("flips expected", device.all.flips_expected, sums.totals.flips_expected, tolerance * sums.totals.flips_expected);
  differences.check("excess", device.all.excess, sums.totals.excess, tolerance * sums.magnitude_of_excess);
  differences.check("excess expected", device.all.excess_expected, sums.totals.excess_expected, tolerance * sums.totals.excess_expected);
  differences.check("z2", device.all.z2, sums.totals.z2, tolerance * sums.totals.z2);
  differences.check("z2 of rounding", device.all.z2_of_rounding, sums.totals.z2_of_rounding, tolerance * sums.totals.z2_of_rounding);
  return differences.found;
}

}  // namespace

std::int64_t compare_fields(const FieldComparer& by_device) {
  const auto between = [](int low, int high) {
    return [=](std::mt19937_64& random) { return low + static_cast<int>(random() % static_cast<std::uint64_t>(high - low + 1)); };
  };
  std::int64_t found = compare_one(by_device, special(), false);
  found += compare_one(by_device, drawn("values around one", 37, 200, 1, between(-3, 3)), false);
  found += compare_one(by_device, drawn("every size", 64, 333, 2, between(-140, 127)), false);
  found += compare_one(by_device, drawn("around the smallest normal", 16, 129, 3, between(-134, -115)), false);
  found += compare_one(by_device, drawn("one column", 300, 1, 4, between(-1, 1)), false);
  found += compare_one(by_device, drawn("full size", 32768, 2048, 5, between(-4, 4)), true);
  return found;
}

}  // namespace assay::cli
