#include "harness/judge/statistics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <unordered_map>

#include <fmt/format.h>

#include "harness/contract/digits.h"
#include "harness/judge/statistics_sums.h"
#include "harness/judge/tail.h"

namespace assay {
namespace {

/// Tokens share one exponential function, whose wrong roundings recur wherever its argument does. Of an error
/// e that is at most sqrt(3) noise (uniform) a flip that happens counts at most 3 times its Chebyshev chance
/// noise^2 / d^2, and 6 times where that is shared between the two sides (noise.h:
/// recurring_noise_after_bf16). With a tenth of the flips due to the function (products of 256 terms; less in
/// longer ones, whose own noise grows) units expect 1 - 1/10 + 6/10; shorter ones expect several times what
/// is seen.
constexpr double kSharedByTokens = 1.5;

constexpr std::string_view kWholeField = "the field";
constexpr double kLn10 = 2.302585092994046;

/// One member of a family: a part of the field with its sums.
struct FamilyMember {
  std::string over;
  Tally tally;
};

/// Fills in what was observed: flips of different significands. `part_of(flip)` is the index of the part.
template <class PartOf>
void observe(std::vector<FamilyMember>& parts, const FieldSums& sums, PartOf part_of) {
  std::vector<std::pair<std::size_t, const Flip*>> flips;
  flips.reserve(sums.flips.size());
  for (const Flip& flip : sums.flips) flips.emplace_back(part_of(flip), &flip);
  const auto order = [](const auto& a, const auto& b) {
    return std::pair(a.first, a.second->key) < std::pair(b.first, b.second->key);
  };
  std::ranges::stable_sort(flips, order);
  for (std::size_t i = 0; i < flips.size(); ++i) {
    if (i > 0 && !order(flips[i - 1], flips[i])) continue;
    Tally& tally = parts[flips[i].first].tally;
    tally.flips += 1.0;
    tally.excess += flips[i].second->excess;
  }
}

struct Measure {
  std::string_view name;
  double Tally::* observed;
  double Tally::* expected;
  double largest;  // of one element
};
constexpr Measure kFlips = {"flipped bits", &Tally::flips, &Tally::flips_expected, 1.0};
constexpr Measure kEnergy = {"excess energy", &Tally::excess, &Tally::excess_expected, kExcessCap};

StatisticalTest finished(StatisticalTest test, double log_chance, double log_share) {
  test.log10_chance = log_chance / kLn10;
  test.log10_share = log_share / kLn10;
  test.beyond = log_chance < log_share;
  return test;
}

/// The worst part of a family of independent elements.
void add_worst(std::vector<StatisticalTest>& tests, const Measure& measure,
               const std::vector<FamilyMember>& parts, double log_share) {
  const FamilyMember* worst = nullptr;
  double worst_chance = 1.0;
  for (const FamilyMember& part : parts) {
    const double chance =
        log_chance_of_sum(part.tally.*measure.observed, part.tally.*measure.expected, measure.largest);
    if (worst != nullptr && !(chance < worst_chance)) continue;
    worst = &part;
    worst_chance = chance;
  }
  if (worst == nullptr || worst->tally.elements == 0) return;
  const double share = log_share - std::log(static_cast<double>(parts.size()));
  const double n = static_cast<double>(worst->tally.elements);
  StatisticalTest test{std::string(measure.name), worst->over, static_cast<std::int64_t>(parts.size())};
  test.observed = worst->tally.*measure.observed / n;
  test.expected = worst->tally.*measure.expected / n;
  test.limit = limit_of_sum(worst->tally.*measure.expected, share, measure.largest) / n;
  tests.push_back(finished(std::move(test), worst_chance, share));
}

/// Row stretches of tiles: 128 rows, and no tile reaches into the next expert where rows are in expert order
/// or an expert's matrix.
std::vector<std::pair<std::int64_t, std::int64_t>> row_stretches(const CompareContext& c, std::int64_t rows) {
  std::vector<std::int64_t> borders = {0, rows};
  if (row(c.field).rows == RowsAre::ExpertOrder && c.routing != nullptr)
    borders.assign(c.routing->offsets.begin(), c.routing->offsets.end());
  if (row(c.field).rows == RowsAre::ExpertMatrix) {
    borders.clear();
    for (std::int64_t begin = 0; begin <= rows; begin += matrix_rows_of(c.field, c.sizes))
      borders.push_back(begin);
  }
  std::vector<std::pair<std::int64_t, std::int64_t>> stretches;
  for (std::size_t i = 0; i + 1 < borders.size(); ++i)
    for (std::int64_t begin = borders[i]; begin < borders[i + 1]; begin += kCellColumns)
      stretches.emplace_back(begin, std::min(borders[i + 1], begin + kCellColumns));
  return stretches;
}

/// At most kTestsPerField tests.
std::vector<StatisticalTest> tests_of_elements(const StatisticsContext& context, const FieldSums& sums) {
  const CompareContext& c = context.field;
  const double share = context.log_share - std::log(double{kTestsPerField});
  std::vector<FamilyMember> field(1);
  std::vector<FamilyMember> experts;
  std::vector<FamilyMember> tiles;
  std::vector<FamilyMember> columns;
  field[0].over = kWholeField;
  std::vector<std::size_t> expert_of(static_cast<std::size_t>(sums.rows));
  std::vector<std::size_t> stretch_of(expert_of.size());
  if (rows_have_experts(c)) {
    std::map<std::int64_t, std::size_t> seen;
    for (std::int64_t r = 0; r < sums.rows; ++r) {
      const std::int64_t expert = expert_of_row(c, r);
      const auto [at, fresh] = seen.try_emplace(expert, experts.size());
      if (fresh) experts.push_back({fmt::format("expert {}", expert), {}});
      expert_of[static_cast<std::size_t>(r)] = at->second;
    }
  }
  const auto stretches = row_stretches(c, sums.rows);
  for (std::size_t s = 0; s < stretches.size(); ++s) {
    const auto [begin, end] = stretches[s];
    for (std::int64_t r = begin; r < end; ++r) stretch_of[static_cast<std::size_t>(r)] = s;
    for (std::int64_t tile = 0; tile < sums.tile_columns; ++tile)
      tiles.push_back({fmt::format("rows {} to {}, cols {} to {}", begin, end - 1, tile * kCellColumns,
                                   std::min(sums.width, (tile + 1) * kCellColumns) - 1),
                       {}});
  }
  const auto expected_only = [](Tally t) {
    t.flips = t.excess = 0.0;
    return t;
  };
  for (std::int64_t r = 0; r < sums.rows; ++r)
    for (std::int64_t tile = 0; tile < sums.tile_columns; ++tile) {
      const Tally cell = expected_only(sums.cells[static_cast<std::size_t>(r * sums.tile_columns + tile)]);
      field[0].tally.add(cell);
      if (!experts.empty()) experts[expert_of[static_cast<std::size_t>(r)]].tally.add(cell);
      tiles[stretch_of[static_cast<std::size_t>(r)] * static_cast<std::size_t>(sums.tile_columns) +
            static_cast<std::size_t>(tile)]
          .tally.add(cell);
    }
  for (std::int64_t col = 0; col < sums.width; ++col) {
    columns.push_back({fmt::format("col {}", col), {}});
    columns.back().tally.flips_expected = sums.column_flips_expected[static_cast<std::size_t>(col)];
    columns.back().tally.elements = sums.rows;
  }
  const auto row_of = [&](const Flip& f) { return static_cast<std::size_t>(f.index / sums.width); };
  const auto column_of = [&](const Flip& f) { return static_cast<std::size_t>(f.index % sums.width); };
  observe(field, sums, [](const Flip&) { return std::size_t{0}; });
  if (!experts.empty()) observe(experts, sums, [&](const Flip& f) { return expert_of[row_of(f)]; });
  observe(tiles, sums, [&](const Flip& f) {
    return stretch_of[row_of(f)] * static_cast<std::size_t>(sums.tile_columns) + column_of(f) / kCellColumns;
  });
  observe(columns, sums, column_of);

  std::vector<StatisticalTest> tests;
  for (const auto* family : {&field, &experts, &tiles, &columns}) add_worst(tests, kFlips, *family, share);
  for (const auto* family : {&field, &experts, &tiles}) add_worst(tests, kEnergy, *family, share);

  // The bias that legal truncation allows: every flip may go the same way, so the band is that of the flips.
  double shift = 0.0;
  std::vector<std::pair<std::uint64_t, float>> shifts;
  for (const Flip& flip : sums.flips) shifts.emplace_back(flip.key, flip.shift);
  std::ranges::sort(shifts);
  for (std::size_t i = 0; i < shifts.size(); ++i)
    if (i == 0 || shifts[i].first != shifts[i - 1].first) shift += shifts[i].second;
  const Tally& all = field[0].tally;
  const double n = static_cast<double>(all.elements);
  StatisticalTest bias{"bias",    std::string(kWholeField), 1,
                       shift / n, all.flips_expected / n,   limit_of_sum(all.flips_expected, share) / n};
  tests.push_back(finished(bias, log_chance_of_sum(std::fabs(shift), all.flips_expected), share));
  return tests;
}

/// Units whose elements may depend on each other in any way: two tests, three with `own_rounding`.
std::vector<StatisticalTest> tests_of_units(const StatisticsContext& context, const FieldSums& sums,
                                            std::span<const Tally> units, double margin) {
  std::vector<StatisticalTest> tests;
  const double share = context.log_share - std::log(context.own_rounding ? 3.0 : 2.0);
  for (const Measure& measure : {kFlips, kEnergy}) {
    std::vector<Unit> pairs;
    Tally sum;
    std::size_t counted = 0;
    for (const Tally& unit : units) {
      sum.add(unit);
      pairs.push_back({unit.*measure.observed, margin * unit.*measure.expected});
      counted += pairs.back().expected > 0.0;
    }
    if (sum.elements == 0) continue;
    const double n = static_cast<double>(sum.elements);
    const double expected = margin * sum.*measure.expected / n;
    StatisticalTest test{std::string(measure.name), std::string(kWholeField), 1, sum.*measure.observed / n,
                         expected};
    test.limit = counted == 0 ? 0.0 : expected * limit_of_units(counted, share);
    tests.push_back(finished(std::move(test), log_chance_of_units(pairs), share));
  }
  if (context.own_rounding) tests.push_back(own_rounding_test(sums.coarse_and_fine, share));
  return tests;
}

/// Sums by token; tokens whose rows repeat another token's are one unit.
std::vector<Tally> token_units(const CompareContext& c, const FieldSums& sums) {
  struct Token {
    Tally tally;
    std::uint64_t key = 0;
  };
  std::vector<Token> tokens(static_cast<std::size_t>(c.sizes.tokens));
  for (std::int64_t r = 0; r < sums.rows; ++r) {
    auto& unit = tokens[static_cast<std::size_t>(token_of_row(c, r))];
    unit.key += sums.row_keys[static_cast<std::size_t>(r)];
    for (std::int64_t tile = 0; tile < sums.tile_columns; ++tile)
      unit.tally.add(sums.cells[static_cast<std::size_t>(r * sums.tile_columns + tile)]);
  }
  std::vector<Tally> units;
  std::unordered_map<std::uint64_t, std::size_t> seen;
  for (const Token& token : tokens) {
    const auto [at, fresh] = seen.try_emplace(token.key, units.size());
    if (fresh) units.emplace_back();
    units[at->second].add(token.tally);
  }
  return units;
}

/// All of the field at once.
std::vector<Tally> one_unit(const FieldSums& sums) {
  std::vector<Tally> units(1);
  for (const Tally& cell : sums.cells) units[0].add(cell);
  return units;
}

std::vector<Tally> class_units(const StatisticsContext& context, const FieldSums& sums) {
  std::map<std::uint16_t, Tally> classes = sums.classes;
  for (const Flip& flip : sums.flips) {
    const std::int64_t r = flip.index / sums.width;
    const std::int64_t c = flip.index % sums.width;
    Tally& unit = classes[context.classes[static_cast<std::size_t>(r * context.class_stride + c)].bits];
    unit.flips += 1.0;
    unit.excess += flip.excess;
  }
  std::vector<Tally> units;
  for (const auto& [argument, unit] : classes) units.push_back(unit);
  return units;
}

std::string percent(double share) { return fmt::format("{:.3g} %", 100.0 * share); }

std::string suspicion(const std::vector<StatisticalTest>& tests) {
  // The widest statement that holds: what the whole field shows comes before its parts.
  const auto margin = [](const StatisticalTest& test) {
    return std::pair(test.over != kWholeField, test.log10_chance - test.log10_share);
  };
  const StatisticalTest* worst = nullptr;
  for (const auto& test : tests)
    if (test.beyond && (worst == nullptr || margin(test) < margin(*worst))) worst = &test;
  if (worst == nullptr) return "";
  const std::string where = worst->over == kWholeField ? "" : fmt::format("in {}, ", worst->over);
  if (worst->measure == kFlips.name)
    return fmt::format(
        "{}{} of elements differ from the rounded reference; at most {} are expected of any legal order of "
        "summation",
        where, percent(worst->observed), percent(worst->limit));
  if (worst->measure == kEnergy.name)
    return fmt::format(
        "{}the mean squared error is {} above that of rounding alone; at most {} is expected of any legal "
        "order of summation",
        where, percent(worst->observed), percent(worst->limit));
  if (worst->measure == kOwnRounding) return own_rounding_in_words(*worst);
  return fmt::format(
      "values are {:.3g} ulps too {} on average; at most {:.3g} is expected of any legal order of summation",
      std::fabs(worst->observed), worst->observed < 0.0 ? "small" : "large", worst->limit);
}

}  // namespace

Statistics field_statistics(const StatisticsContext& context, StoredSpan out,
                            std::span<const Interval> reference, const std::optional<FieldCells>& by_engine) {
  FieldSums sums;
  if (!out.empty()) add_rows(context, out, reference, by_engine, sums);
  return statistics_of(context, sums);
}

Statistics statistics_of(const StatisticsContext& context, const FieldSums& sums) {
  Statistics result;
  const std::int64_t elements = sums.rows * sums.width;
  if (elements == 0) return result;
  const double n = static_cast<double>(elements);
  result.z2 = sums.z2 / n;
  result.z2_of_rounding = sums.z2_of_rounding / n;
  result.max_contract_ulps = sums.max_contract_ulps;
  if (sums.max_contract_ulps_at >= 0)
    result.max_contract_ulps_at = locate(context.field, sums.max_contract_ulps_at);
  for (std::size_t b = 0; b < sums.ulps.size(); ++b) {
    const std::int64_t first = first_of_bucket(static_cast<int>(b));
    if (sums.ulps[b] > 0) result.ulp_histogram.emplace_back(first, sums.ulps[b]);
    if (sums.ulps[b] > 0 && first > 0) result.ulps_inward.emplace_back(first, sums.ulps_inward[b]);
  }
  if (context.dependence == Dependence::Elements) {
    result.units = "elements";
    result.unit_count = elements;
    result.tests = tests_of_elements(context, sums);
  } else {
    std::vector<Tally> units;
    switch (context.dependence) {
      case Dependence::Elements: break;
      case Dependence::Tokens:
        units = token_units(context.field, sums);
        result.units = "tokens";
        break;
      case Dependence::Nothing:
        units = one_unit(sums);
        result.units = "fields";
        break;
      case Dependence::Classes:
        units = class_units(context, sums);
        result.units = "gate values";
        break;
    }
    result.unit_count = static_cast<std::int64_t>(units.size());
    result.tests = tests_of_units(context, sums, units,
                                  context.dependence == Dependence::Classes ? 1.0 : kSharedByTokens);
  }
  result.suspicion = suspicion(result.tests);
  return result;
}

StatisticalTest count_test(std::string_view measure, std::string_view over, std::int64_t of, double observed,
                           double expected, double log_share) {
  const double n = static_cast<double>(std::max<std::int64_t>(of, 1));
  StatisticalTest test{std::string(measure), std::string(over), 1,
                       observed / n,         expected / n,      limit_of_sum(expected, log_share) / n};
  return finished(std::move(test), log_chance_of_sum(observed, expected), log_share);
}

}  // namespace assay
