// Two reports and their fields, for tests of regress.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/judge/regress.h"

namespace assay::regress_sample {

inline constexpr MoeConfig kSmall = {8, 4, 6, 2, true};

inline FieldResult field_result(Field field) {
  FieldResult f;
  f.field = field;
  f.verdict = f.isolated.verdict = f.chained.verdict = Verdict::Passed;
  f.isolated.elements = f.chained.elements = 100;
  f.isolated.max_ratio = 0.4;
  f.chained.max_ratio = 0.2;
  f.isolated.mismatched = 3;
  f.isolated_bits.available = true;
  f.isolated_bits.elements = f.isolated_bits.as_predicted = 100;
  return f;
}

inline CaseResult case_result(std::string problem, std::string candidate) {
  CaseResult c;
  c.problem = std::move(problem);
  c.candidate = std::move(candidate);
  c.contract = "hf";
  c.config = kSmall;
  c.tokens = 3;
  c.verdict = Verdict::Passed;
  c.seconds = 1.0;
  c.fields = {field_result(Field::router_logits), field_result(Field::second_gemm),
              field_result(Field::hidden_states)};
  return c;
}

inline Report report() {
  Report r;
  r.cases = {case_result("tiny", "gpu_fused"), case_result("odd", "gpu_fused")};
  return r;
}

inline void fail(CaseResult& c, std::size_t field, double ratio) {
  c.fields[field].verdict = c.fields[field].isolated.verdict = c.verdict = Verdict::Failed;
  c.fields[field].isolated.max_ratio = ratio;
}

inline bool says(const std::vector<Finding>& findings, Severity severity, std::string_view part) {
  for (const Finding& one : findings)
    if (one.severity == severity && one.sentence.find(part) != std::string::npos) return true;
  return false;
}

inline Tensor bf16_tensor(Shape shape, std::uint16_t first_bits) {
  Tensor t(DType::BFloat16, std::move(shape));
  std::uint16_t bits = first_bits;
  for (Bf16& x : t.as<Bf16>()) x.bits = bits++;
  return t;
}

}  // namespace assay::regress_sample
