#include <cmath>
#include <iterator>
#include <random>

#include "reports/sample_report.h"

namespace assay::sample {
namespace {

using Random = std::mt19937;

double between(Random& random, double low, double high) {
  return low + (high - low) * static_cast<double>(random()) / 4294967296.0;
}

/// The same bins are wrong, each by as much and there as chance has it.
void scatter_errors(ErrorMap& map, Random& random) {
  const std::int64_t places = map.bin_rows * map.bin_columns;
  const int digits = place_digits(map);
  for (std::size_t r = 0; r < map.levels.size(); ++r) {
    if (digits > 0) map.places[r].clear();
    for (char& level : map.levels[r]) {
      if (level == kNothingOutside) continue;
      level = static_cast<char>('a' + random() % 8);
      const std::int64_t place = random() % places;
      for (int d = digits - 1; d >= 0; --d)
        map.places[r] += kPlaceDigits[static_cast<std::size_t>((place >> (6 * d)) & 63)];
    }
  }
}

void vary(Element& e, Random& random) {
  for (double* value : {&e.ref, &e.low, &e.high, &e.out, &e.delta, &e.magnitude})
    *value *= between(random, 0.5, 2.0);
  e.ratio = between(random, 1.0, 1e4);
  e.ulps = static_cast<std::int64_t>(between(random, 1.0, 1e4));
  for (auto& [axis, index] : e.at) index = static_cast<std::int64_t>(random() % 2048);
}

void vary(Judgement& j, Random& random) {
  j.max_ratio *= between(random, 0.2, 1.0);
  for (std::int64_t* count : {&j.rejected, &j.mismatched}) *count = *count == 0 ? 0 : 1 + random() % *count;
  for (auto& [expert, ratio] : j.worst_by_expert) ratio = between(random, 0.1, j.max_ratio);
  for (auto& [expert, count] : j.rejected_by_expert) count = static_cast<std::int64_t>(random() % 5000);
  for (Element& e : j.worst_rejected) vary(e, random);
  if (j.worst) vary(*j.worst, random);
  for (auto* bins : {&j.statistics.ulp_histogram, &j.statistics.ulps_inward})
    for (auto& [first, count] : *bins) count = static_cast<std::int64_t>(random() % 100'000);
  for (StatisticalTest& test : j.statistics.tests) test.observed = between(random, 0.0, 0.1);
  if (j.pattern) scatter_errors(j.pattern->map, random);
}

}  // namespace

Report many_cases(int count) {
  Report r = report();
  r.title = "assay verify: all fixtures";
  r.cases.clear();
  for (int i = 0; i < count; ++i) {
    CaseResult c = passing_case();
    c.problem = "tiny_" + std::to_string(i);
    c.seconds = 0.008 * (i + 1);
    r.cases.push_back(std::move(c));
  }
  r.cases.push_back(failing_case());
  return r;
}

Report many_failures(int failing, int passing) {
  Report r = many_cases(passing);
  r.cases.pop_back();
  std::vector<CaseResult> cases;
  for (int i = 0; i < failing; ++i) {
    CaseResult c = failing_case();
    c.problem = "failing_" + std::to_string(i);
    if (i >= 20)
      for (FieldResult& f : c.fields)
        for (Judgement* judgement : {&f.isolated, &f.chained})
          if (judgement->pattern) {
            const std::vector<std::string> levels(43, std::string(32, 'b'));
            const std::vector<std::string> places(43, std::string(64, '3'));
            judgement->pattern = ErrorPattern{{0, 0, 128, 2048, 3, 64, {}, levels, places}, {}, {}, {}};
          }
    cases.push_back(std::move(c));
  }
  r.cases.insert(r.cases.begin(), std::make_move_iterator(cases.begin()),
                 std::make_move_iterator(cases.end()));
  return r;
}

Report distinct_failures(int failing, int passing) {
  Report r = many_failures(failing, passing);
  Random random(20);
  const CaseResult drawn = failing_case();
  for (CaseResult& c : r.cases) {
    for (std::size_t i = 0; i < c.fields.size(); ++i) {
      FieldResult& f = c.fields[i];
      if (f.isolated.pattern) f.isolated.pattern = drawn.fields[i].isolated.pattern;
      for (Judgement* judgement : {&f.isolated, &f.chained}) vary(*judgement, random);
      for (Cause& cause : f.causes) cause.explained = between(random, 0.5, 1.0);
    }
  }
  return r;
}

}  // namespace assay::sample
