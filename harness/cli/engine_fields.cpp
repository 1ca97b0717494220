#include "harness/cli/engine_fields.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <optional>
#include <random>
#include <string>

#include "harness/contract/error.h"
#include "harness/judge/cells_by_engine.h"
#include "harness/judge/cells_on_host.h"
#include "harness/judge/compare.h"
#include "harness/judge/statistics_sums.h"
#include "reports/json.h"

namespace assay::cli {
namespace {

struct FieldExample {
  std::string name;
  std::int64_t rows;
  std::int64_t width;
  LargeVector<Bf16> out;
  LargeVector<Interval> reference;
};

double pick(std::mt19937_64& random, std::initializer_list<double> choices) {
  return choices.begin()[random() % choices.size()];
}

/// A reference of the size that `exponent` draws, an interval and noise around it, and a stored value near
/// it.
template <class Exponent>
FieldExample drawn(const std::string& name, std::int64_t rows, std::int64_t width, std::uint64_t seed,
                   Exponent exponent) {
  const auto count = static_cast<std::size_t>(rows * width);
  FieldExample e{name, rows, width, LargeVector<Bf16>(count), LargeVector<Interval>(count)};
#pragma omp parallel for schedule(static)
  for (std::int64_t r = 0; r < rows; ++r) {
    std::mt19937_64 random(seed + static_cast<std::uint64_t>(r));
    for (std::int64_t c = 0; c < width; ++c) {
      const auto i = static_cast<std::size_t>(r * width + c);
      const double sign = random() % 2 == 0 ? 1.0 : -1.0;
      // Often next to a boundary between neighbours, or a power of two, where roundings and spacings change.
      const double fraction = pick(random, {static_cast<double>(random() >> 11) * 0x1p-53, 0x1p-8,
                                            0x1p-8 + 0x1p-40, 0.0, 1.0 - 0x1p-9});
      const double ref = sign * std::ldexp(1.0 + fraction, exponent(random));
      const double delta = std::fabs(ref) * pick(random, {0.0, 0x1p-30, 0x1p-14, 0x1p-9});
      const double noise = delta * pick(random, {0.0, 0.01, 0.3, 1.0});
      e.reference[i] = {ref, ref - delta, ref + delta, noise, noise * pick(random, {0.01, 0.8, 1.0})};
      Bf16 out = round_to_bf16(ref);
      if (random() % 50 == 0)
        out.bits = static_cast<std::uint16_t>(out.bits + pick(random, {1.0, 2.0, 5.0, 40.0, 3000.0}));
      e.out[i] = out;
    }
  }
  return e;
}

FieldExample special() {
  FieldExample e{"zeros, subnormal, largest, Inf and NaN on either side", 18, 360, {}, {}};
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double values[] = {0.0,       -0.0,     0x1p-134, 0x1p-133, 0x1.8p-133, 0x1p-126,
                           -0x1p-127, 0x1p-117, 1.0,      -1.0,     0x1.fep127, 0x1.ffp127,
                           0x1p128,   1e300,    inf,      -inf,     nan,        -nan};
  for (const double ref : values)
    for (const double out : values)
      for (const double delta : {0.0, 0x1p-133, 0x1p-8, 0x1p120, inf})
        for (const double noise : {0.0, 0x1p-140, 0x1p-10, nan}) {
          e.out.push_back(round_to_bf16(out));
          e.reference.push_back({ref, ref - delta, ref + delta, noise});
        }
  return e;
}

/// Values are their own classes.
StatisticsContext context_of(const FieldExample& e, Dependence dependence) {
  const std::span<const Bf16> classes =
      dependence == Dependence::Classes ? std::span<const Bf16>(e.out) : std::span<const Bf16>();
  return {{Field::hidden_states, Sizes{{e.width, 1, 1, 1, true}, e.rows}, nullptr},
          dependence,
          classes,
          e.width,
          std::log(1e-6)};
}

/// How many cells and sums are not equal to the last bit.
std::int64_t differing(const FieldCells& a, const FieldCells& b) {
  std::int64_t count = 0;
  for (std::size_t i = 0; i < b.cells.size(); ++i) count += !(a.cells[i] == b.cells[i]);
  for (std::size_t i = 0; i < b.column_flips_expected.size(); ++i)
    count += !(a.column_flips_expected[i] == b.column_flips_expected[i]);
  for (std::size_t i = 0; i < b.classes.size(); ++i) count += !(a.classes[i] == b.classes[i]);
  return count;
}

/// Everything a report says of the field, by an engine's cells or by the CPU.
std::string judgement(const StatisticsContext& context, const FieldExample& e,
                      const std::optional<FieldCells>& by_engine) {
  FieldResult result;
  result.field = context.field.field;
  result.isolated = compare_rounded(context.field, e.out, e.reference, by_engine);
  result.isolated.statistics = field_statistics(context, e.out, e.reference, by_engine);
  Report report;
  report.cases.emplace_back().fields.push_back(result);
  return to_json(report);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Of one example: cells, column sums and class sums that differ, and reports.
std::int64_t compare_one(const Engine& engine, const FieldExample& e, Dependence dependence, bool verbose,
                         bool timed) {
  const StatisticsContext context = context_of(e, dependence);
  auto start = std::chrono::steady_clock::now();
  std::optional<FieldCells> by_engine;
  try {
    by_engine = cells_by_engine(&engine, context, e.out, e.reference);
  } catch (const InputError& error) {
    if (verbose) std::printf("  %s: %s\n", e.name.c_str(), error.what());
    return 1;
  }
  const double cells_seconds = seconds_since(start);
  if (!by_engine) {
    std::printf("  declined: %s\n", e.name.c_str());
    return 1;
  }
  const std::int64_t found = differing(*by_engine, cells_on_host(field_rows(context, e.out, e.reference)));
  start = std::chrono::steady_clock::now();
  const std::string theirs = judgement(context, e, by_engine);
  const double judged_seconds = seconds_since(start);
  start = std::chrono::steady_clock::now();
  const bool equal = theirs == judgement(context, e, {});
  if (timed)
    std::printf("  %s, %zu elements: engine %.3f s, judged by its cells %.3f s; CPU %.3f s\n", e.name.c_str(),
                e.out.size(), cells_seconds, judged_seconds, seconds_since(start));
  if (verbose && found > 0)
    std::printf("  %s: %lld cells or sums differ\n", e.name.c_str(), static_cast<long long>(found));
  if (verbose && !equal) std::printf("  %s: reports differ\n", e.name.c_str());
  return found + !equal;
}

std::function<int(std::mt19937_64&)> between(int low, int high) {
  return [=](std::mt19937_64& random) {
    return low + static_cast<int>(random() % static_cast<std::uint64_t>(high - low + 1));
  };
}

constexpr Dependence kDependences[] = {Dependence::Elements, Dependence::Tokens, Dependence::Classes};

/// One change, in a cell that is not sampled.
struct Plant {
  const char* what;
  void (*change)(FieldCells& cells, std::size_t cell, std::size_t column);
};

void up(double& x) { x = std::nextafter(x, std::numeric_limits<double>::infinity()); }

const Plant kPlants[] = {
    {"a rejected element less",
     [](FieldCells& c, std::size_t at, std::size_t) { c.cells[at].test.rejected ^= 1; }},
    {"a mismatch", [](FieldCells& c, std::size_t at, std::size_t) { c.cells[at].test.mismatched ^= 1; }},
    {"the largest ratio", [](FieldCells& c, std::size_t at, std::size_t) { up(c.cells[at].test.max_ratio); }},
    {"a flip", [](FieldCells& c, std::size_t at, std::size_t) { c.cells[at].sums.flipped[0] ^= 2; }},
    {"flips expected",
     [](FieldCells& c, std::size_t at, std::size_t) { up(c.cells[at].sums.flips_expected); }},
    {"excess", [](FieldCells& c, std::size_t at, std::size_t) { up(c.cells[at].sums.excess); }},
    {"excess expected",
     [](FieldCells& c, std::size_t at, std::size_t) { up(c.cells[at].sums.excess_expected); }},
    {"z2", [](FieldCells& c, std::size_t at, std::size_t) { up(c.cells[at].sums.z2); }},
    {"z2 of rounding",
     [](FieldCells& c, std::size_t at, std::size_t) { up(c.cells[at].sums.z2_of_rounding); }},
    {"the largest error",
     [](FieldCells& c, std::size_t at, std::size_t) { up(c.cells[at].sums.max_contract_ulps); }},
    {"a column's sum",
     [](FieldCells& c, std::size_t, std::size_t column) { up(c.column_flips_expected[column]); }},
    {"a class's sum", [](FieldCells& c, std::size_t, std::size_t) { ++c.classes[0x3f80].flips_expected; }},
};

}  // namespace

std::int64_t compare_small_fields(const Engine& engine) {
  std::int64_t found = 0;
  for (const Dependence dependence : kDependences) {
    found += compare_one(engine, special(), dependence, true, false);
    found +=
        compare_one(engine, drawn("values around one", 37, 200, 1, between(-3, 3)), dependence, true, false);
    found +=
        compare_one(engine, drawn("every size", 64, 333, 2, between(-140, 127)), dependence, true, false);
    found += compare_one(engine, drawn("around the smallest normal", 16, 129, 3, between(-134, -115)),
                         dependence, true, false);
    found += compare_one(engine, drawn("one column", 300, 1, 4, between(-1, 1)), dependence, true, false);
  }
  return found;
}

std::int64_t compare_fields(const Engine& engine) {
  std::int64_t found = compare_small_fields(engine);
  const FieldExample full = drawn("full size", 32768, 2048, 5, between(-4, 4));
  for (const Dependence dependence : kDependences) found += compare_one(engine, full, dependence, true, true);
  return found;
}

bool planted_differences_are_found(const Engine& engine) {
  constexpr std::int64_t kRows = 600;
  constexpr std::int64_t kWidth = 1500;
  constexpr std::int64_t kTiles = (kWidth + kCellColumns - 1) / kCellColumns;
  const FieldExample example = drawn("planted", kRows, kWidth, 6, between(-4, 4));
  bool all = true;
  for (const Plant& plant : kPlants) {
    Engine faulty = engine;
    faulty.cells = [&](const FieldRows& field, FieldCells& out) {
      const bool taken = engine.cells(field, out);
      plant.change(out, (kRows - 1) * kTiles, 2 * kWidth);
      return taken;
    };
    const bool found = compare_one(faulty, example, Dependence::Classes, false, false) > 0;
    if (!found) std::printf("  expected to find the planted change of %s\n", plant.what);
    all = all && found;
  }
  // Sampled cells tell an engine of other arithmetic.
  Engine other = engine;
  other.cells = [&](FieldRows field, FieldCells& out) {
    field.carried = !field.carried;
    return engine.cells(field, out);
  };
  try {
    cells_by_engine(&other, context_of(example, Dependence::Elements), example.out, example.reference);
    std::printf("  expected the sampled cells to refuse it, found that they accept it\n");
    return false;
  } catch (const InputError& error) {
    std::printf("refused: %s\n", error.what());
  }
  return all;
}

}  // namespace assay::cli
