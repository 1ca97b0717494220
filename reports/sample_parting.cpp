#include <cmath>

#include "reports/sample_parting.h"

namespace assay::sample {

Parting parting() {
  Parting all;
  all.a.name = "a.h5";
  all.b.name = "<b>.h5";
  all.a.legal_under = {"hf"};
  all.b.legal_under = {"hf", "hf_eager"};
  for (PartingSide* side : {&all.a, &all.b}) side->judged.verdict = Verdict::Passed;
  FieldParting same{.field = Field::second_gemm, .in_a = true, .in_b = true, .elements = 1200};
  FieldParting other{
      .field = Field::hidden_states, .in_a = true, .in_b = true, .elements = 936, .differing = 3};
  other.largest_ulps = 2;
  other.first = {.at = {{"token", 4}, {"col", 7}}, .a = 1.5, .b = std::nan("")};
  other.furthest = {.at = {{"token", 5}, {"col", 8}},
                    .in_a = 9,
                    .in_b = 9,
                    .a = 1.5,
                    .b = 2.5,
                    .float64_a = 1.625,
                    .float64_b = 1.625};
  other.rms_a = 0.25;
  other.rms_b = 0.5;
  other.nearer_a = 2;
  other.nearer_b = 1;
  FieldParting absent{.field = Field::d_gate, .in_a = true};
  all.fields = {same, other, absent};
  all.first = Field::hidden_states;
  all.routing = {.tokens = 13, .same_sets = 12, .same_order = 11, .same_weights = 11};
  all.routing.partings = {{5, {3}, {7}, 0.0, 0.5}};
  all.separating_others = {"silu is rounded to bf16, which B does not do"};
  all.sentence = "A and B part first at hidden_states";
  return all;
}

}  // namespace assay::sample
