#include "reports/sample_report.h"

#include <cmath>
#include <limits>

namespace assay::sample {
namespace {

constexpr MoeConfig kQwen3 = {2048, 768, 128, 8, true};
constexpr std::int64_t kTokens = 16;

std::int64_t count_of(Field field) { return element_count(expected_shape(field, {kQwen3, kTokens})); }

bool by_expert(Field field) { return row(field).shape[0] == Dim::S || row(field).shape[0] == Dim::E; }

Element element(Field field, double ratio) {
  Element e;
  for (std::size_t axis = 0; axis < expected_shape(field, {kQwen3, kTokens}).size(); ++axis)
    e.at.emplace_back(axis_name(field, axis), 3 + static_cast<std::int64_t>(axis) * 1021);
  if (by_expert(field)) e.at.emplace_back("token", 2);
  e.ref = 0.12345678901234567;
  e.ref_bits = 0x3dfd;
  e.delta = 3.1e-5;
  e.a_priori = 4.1e-4;
  e.running = 3.1e-5;
  e.magnitude = 3.4142135;
  e.low = 0.123046875;
  e.high = 0.1240234375;
  const double step = 0x1p-11;  // bf16 neighbours near 0.123
  e.ulps = std::llround(ratio * (e.delta + step / 2) / step);
  e.out = 0.12353515625 + static_cast<double>(e.ulps) * step;
  e.out_bits = static_cast<std::uint32_t>(0x3dfd + e.ulps);
  e.ratio = ratio;
  return e;
}

Judgement judged(Field field, Verdict verdict, double ratio, std::int64_t rejected, std::int64_t mismatched) {
  Judgement j;
  j.verdict = verdict;
  j.elements = count_of(field);
  j.rejected = rejected;
  j.mismatched = mismatched;
  if (row(field).match != Match::Rounded) return j;
  j.max_ratio = ratio;
  j.worst = element(field, ratio);
  j.bounds = {
      "C(n) sum |a||b| for additions in any order, C(n) = n u / (1 - n u) = 0.000122, n = 2048, u = 2^-24",
      "hopper, in its own order: each of 128 steps of 16 products loses at most 2^-23 of the sum it leaves "
      "and 2^-21 of its largest addend",
      62, 3, 117.25};
  if (by_expert(field))
    for (std::int64_t expert = 0; expert < 12; ++expert)
      j.worst_by_expert.emplace_back(expert * 11, ratio / (1.0 + static_cast<double>(expert) / 4));
  return j;
}

Statistics statistics(Field field, double flipped) {
  Statistics s;
  s.units = "elements";
  s.unit_count = count_of(field);
  s.z2 = 1.0 + 3 * flipped;
  s.z2_of_rounding = 0.998;
  s.max_contract_ulps = 0.97;
  s.max_contract_ulps_at = {{"row", 3}, {"col", 1021}};
  s.ulp_histogram = {{0, count_of(field) - 420}, {1, 400}, {3, 20}};
  s.ulps_inward = {{1, 190}, {3, 20}};
  s.tests = {{"flipped bits", "the field", 1, flipped, 0.0031, 0.0045, flipped > 0.0045 ? -812.5 : 0.0, -8.4,
              flipped > 0.0045},
             {"excess energy", "rows 128 to 255, cols 0 to 127", 96, flipped / 3, 0.0002, 0.011, -1.25, -9.9,
              false}};
  if (flipped > 0.0045)
    s.suspicion =
        "43 % of elements differ from the rounded reference; at most 0.45 % are expected of any legal order "
        "of summation";
  return s;
}

/// Of 16 experts with 8 rows each the fifth is wrong throughout, and everywhere each 16th column of each 8th
/// row.
ErrorPattern pattern(std::int64_t columns) {
  ErrorPattern p;
  p.map = {0, 0, kTokens * kQwen3.top_k, columns, 1, columns / 256, {}, {}, {}};
  for (std::int64_t r = 0; r < p.map.rows; ++r) {
    if (r % 8 == 0) p.map.bands.emplace_back(r / 8 * 7, r);
    std::string& levels = p.map.levels.emplace_back();
    std::string& places = p.map.places.emplace_back();
    for (std::int64_t c = 0; c < p.map.column_bins(); ++c) {
      const bool wrong = r / 8 == 4 || (r % 8 == 0 && c % 2 == 0);
      levels += wrong ? error_level(static_cast<double>(1 + r * c % 4000)) : kNothingOutside;
      if (wrong) places += kPlaceDigits[static_cast<std::size_t>(c % 8)];
    }
  }
  p.detail = ErrorMap{32, 1984, 64, 64, 1, 1, {}, {}, {}};
  for (std::int64_t r = 0; r < 64; ++r) {
    std::string& levels = p.detail->levels.emplace_back();
    for (std::int64_t c = 0; c < 64; ++c)
      levels += r / 8 == 0 || (r % 8 == 0 && c % 16 == 0) ? error_level(static_cast<double>(1 + r * c % 90))
                                                          : kNothingOutside;
  }
  p.detail->levels[9][9] = kNoRatio;
  for (int i = -120; i < 120; ++i) {
    p.sampled.emplace_back(i / 64.0, i / 64.0);
    p.rejected.emplace_back(i / 64.0, i / 128.0);
  }
  return p;
}

Prediction predicted(Field field, std::int64_t undetermined, std::int64_t differing) {
  Prediction p;
  p.available = true;
  p.binding = true;
  p.elements = count_of(field);
  p.undetermined = undetermined;
  p.differing = differing;
  p.as_predicted = p.elements - undetermined - differing;
  p.accumulator = "hopper";
  return p;
}

CaseResult empty_case() {
  CaseResult c;
  c.problem = "qwen3_30b_a3b";
  c.config = kQwen3;
  c.tokens = kTokens;
  c.seed = 18446744073709551557u;
  c.seconds = 3.25;
  c.multiply_adds = 608174080;
  c.reference_values = 1708800;
  c.confirmed_values = 1708797;
  c.accumulators = "router hopper_split(1024, 1024), gate_up hopper, down hopper";
  c.expert_load.assign(128, 0);
  for (std::int64_t slot = 0; slot < kTokens * kQwen3.top_k; ++slot)
    ++c.expert_load[static_cast<std::size_t>((slot * slot * 7 + slot) % 97)];
  return c;
}

}  // namespace

CaseResult passing_case() {
  CaseResult c = empty_case();
  c.candidate = "golden/recorded/qwen3_30b_a3b.grouped_mm.h5";
  c.producer = "huggingface grouped_mm";
  c.device = "NVIDIA H200";
  c.contract = "hf";
  c.verdict = Verdict::Passed;
  c.headline = "All 20 fields are what HuggingFace computes, each judged on its own and from the inputs.";
  c.replay = "assay verify --golden golden/recorded/qwen3_30b_a3b.grouped_mm.h5 --contract hf";
  c.remarks = {
      "hidden_states_unpermute is a derived copy: HuggingFace weights the rows before it unpermutes them"};
  for (const FieldRow& row : kFields) {
    if (row.match == Match::Given) continue;
    const auto i = static_cast<double>(row.id);
    FieldResult f;
    f.field = row.id;
    f.verdict = Verdict::Passed;
    f.origin = row.id == Field::hidden_states_unpermute ? "derived" : "captured";
    const bool rounded = row.match == Match::Rounded;
    f.isolated = judged(row.id, Verdict::Passed, 0.02 + std::fmod(i * 0.137, 0.9), 0,
                        rounded ? count_of(row.id) / 900 : 0);
    f.chained = judged(row.id, Verdict::Passed, 0.01 + std::fmod(i * 0.091, 0.4), 0,
                       rounded ? count_of(row.id) / 40 : 0);
    if (rounded) {
      f.isolated.statistics = statistics(row.id, 0.001);
      f.chained.statistics = statistics(row.id, 0.002);
    }
    f.vacuity = {{"zeros", VacuityOutcome::Rejected, "interval", false},
                 {"rows rotated by one", VacuityOutcome::NotApplicable, "equals the reference", false}};
    f.isolated_bits = predicted(row.id, 0, 0);
    f.chained_bits = predicted(row.id, 0, 0);
    c.fields.push_back(std::move(f));
  }
  return c;
}

CaseResult failing_case() {
  CaseResult c = passing_case();
  c.candidate = "gpu_fused";
  c.producer = "assay gpu_fused, wgmma sm_90a";
  c.verdict = Verdict::WrongShape;
  c.headline = "second_gemm is the first stage with an error of its own; hidden_states inherits it.";
  c.first_own_error = Field::second_gemm;
  c.own_error_place = "second_gemm";
  c.replay =
      "assay verify --fixture qwen3_30b_a3b --pipeline gpu_fused --contract hf --seed 18446744073709551557";
  c.explain =
      "assay explain --fixture qwen3_30b_a3b --pipeline gpu_fused --field second_gemm --at row=3,col=1024";
  c.minimize = "assay minimize --fixture qwen3_30b_a3b --pipeline gpu_fused -o small.h5";
  c.remarks = {"first_gemm stays in registers: intermediate was judged from permuted inputs as one edge"};
  c.flips = {{7, {101}, {12}, 0.0009765625, 0.00390625, true, 0.000244140625, RoutingTier::Admissible},
             {11, {3, 64}, {5, 90}, 0.25, 0.0078125, false, 0.000244140625, RoutingTier::Failed}};
  for (FieldResult& f : c.fields) {
    f.origin = "computed";
    switch (f.field) {  // a sample of what a report can say, each of another field
      case Field::token_counts_by_expert:
        f.isolated.tokens = 16;
        f.isolated.rejected_tokens = 3;
        break;
      case Field::first_gemm:
        f = FieldResult{};
        f.field = Field::first_gemm;
        break;
      case Field::intermediate:
        f.upstream = "input_hidden_states, gather_indices, gate_up_proj";
        f.verdict = Verdict::Suspect;
        f.isolated_bits = predicted(f.field, 2, 41);
        f.isolated_bits.cause = "silu kept in fp32 before the product explains 41 of 41 elements";
        f.isolated_bits.first = element(f.field, 0.3);
        f.isolated.statistics = statistics(f.field, 0.43);
        f.isolated.verdict = Verdict::Suspect;
        f.chained.statistics = statistics(f.field, 0.43);
        f.chained.statistics.explained = true;
        break;
      case Field::second_gemm:
        f.verdict = Verdict::Failed;
        f.isolated = judged(f.field, Verdict::Failed, 12.4, 5012, 90112);
        f.chained = judged(f.field, Verdict::Failed, 31.25, 9001, 120004);
        f.isolated.where = "all in expert 33";
        f.isolated_bits = predicted(f.field, 0, 90112);
        f.isolated_bits.cause = "the last 16 elements of K are missing for expert 33";
        f.chained_bits.available = false;
        f.notes = {"every rejected element lies in rows of expert 33"};
        f.isolated.statistics = statistics(f.field, 0.001);
        f.isolated.pattern = pattern(2048);
        f.isolated.rejected_by_expert = {{33, 5000}, {44, 12}};
        for (int i = 0; i < 10; ++i) f.isolated.worst_rejected.push_back(element(f.field, 12.4 - i));
        f.causes = {
            {"wrong_row", "the rows of expert 33 hold what expert 34 would give", 0.998, false},
            {"k_dropped",
             "the last 64 of K are missing for expert 33",
             0.97,
             false,
             {},
             {{0, 256, 0.001, 0.004}, {256, 704, -0.002, 0.003}, {704, 768, 0.998, 0.01}}},
            {"wrong_expert", "the weights are those of the next expert", 1.0, true, Field::first_gemm}};
        break;
      case Field::hidden_states_unpermute:
        f.verdict = Verdict::Mistrusted;
        f.isolated.verdict = Verdict::Mistrusted;
        f.isolated.rejected = 3;
        f.notes = {"a wrong copy of the reference (half-scaled) would have passed this very check"};
        f.vacuity = {{"half-scaled", VacuityOutcome::WouldPass, "every element of it is accepted", false},
                     {"half-scaled", VacuityOutcome::WouldPass, "every element of it is accepted", true}};
        break;
      case Field::hidden_states:
        f.verdict = Verdict::Failed;
        f.chained = judged(f.field, Verdict::Failed, 8.5, 410, 9120);
        f.chained.pattern.emplace().map = {
            0, 0, kTokens, 2048, 16, 64, {}, {std::string(32, 'c')}, {std::string(64, '7')}};
        f.chained.worst_rejected = {element(f.field, 8.5)};
        f.chained_bits = predicted(f.field, 0, 9120);
        f.chained_bits.binding = false;
        break;
      case Field::d_topk_weights:
        f.verdict = Verdict::NonFinite;
        f.isolated = judged(f.field, Verdict::NonFinite, std::numeric_limits<double>::infinity(), 2, 5);
        f.isolated.non_finite = 2;
        f.isolated.worst->out = std::numeric_limits<double>::quiet_NaN();
        f.isolated.worst->out_bits = 0x7fc0;
        f.isolated.worst->ulps = 0;
        f.isolated.worst->high = std::numeric_limits<double>::infinity();
        break;
      case Field::d_gate:
        f = FieldResult{};
        f.field = Field::d_gate;
        f.dtype = DType::Float32;  // as hf_main_grads has it
        f.verdict = f.isolated.verdict = f.chained.verdict = Verdict::WrongShape;
        f.notes = {"expected shape [128, 2048], found [128, 1024]"};
        break;
      case Field::d_gate_up_proj:
        f = FieldResult{};
        f.field = Field::d_gate_up_proj;
        f.verdict = f.isolated.verdict = f.chained.verdict = Verdict::Unsupported;
        break;
      default: break;
    }
  }
  return c;
}

Report report() {
  Report r;
  r.title = "assay verify: qwen3_30b_a3b";
  r.command = "assay verify --fixture qwen3_30b_a3b --pipeline gpu_fused --html report.html";
  r.created = "2026-11-21T08:00:00Z";
  r.environment = {{"assay", "0.1.0 (868a281)"}, {"compiler", "g++ 12.2"},
                   {"CPU", "16 cores, AVX-512"}, {"GPU", "NVIDIA H200, driver 580.65"},
                   {"HDF5", "1.10.8"},           {"threads", "16"}};
  r.cases = {passing_case(), failing_case()};
  r.seconds = 6.5;
  r.peak_memory_bytes = 1288490188;
  return r;
}

Report hostile_report() {
  Report r = report();
  const std::string hostile =
      "</script><script>alert(1)</script><!-- \"quoted\" 'single' & ]]> \x1b[31m \xc2\x9b"
      "2J \xe2\x80\xae \xff end";
  r.title = hostile;
  r.command = hostile;
  r.environment.emplace_back(hostile, hostile);
  for (CaseResult& c : r.cases) {
    for (std::string* text : {&c.problem, &c.candidate, &c.producer, &c.device, &c.contract, &c.accumulators,
                              &c.headline, &c.own_error_place, &c.replay, &c.explain, &c.minimize})
      *text = hostile;
    c.remarks.push_back(hostile);
    for (FieldResult& f : c.fields) {
      f.notes.push_back(hostile);
      for (auto* s : {&f.isolated.statistics, &f.chained.statistics}) {
        s->units = s->suspicion = hostile;
        s->max_contract_ulps_at.emplace_back(hostile, 1);
        for (auto& test : s->tests) test.measure = test.over = hostile;
      }
      for (auto& check : f.vacuity) check.copy = check.reason = hostile;
      for (auto& cause : f.causes) cause.sentence = hostile;
      f.isolated.bounds.a_priori = f.chained.bounds.running = hostile;
      f.upstream = f.origin = f.isolated_bits.cause = f.isolated_bits.accumulator = hostile;
      if (f.isolated.worst) f.isolated.worst->at.emplace_back(hostile, 1);
    }
  }
  return r;
}

}  // namespace assay::sample
