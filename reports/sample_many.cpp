#include <iterator>

#include "reports/sample_report.h"

namespace assay::sample {

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

}  // namespace assay::sample
