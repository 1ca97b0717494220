// The members of a Report by name: one list that the JSON writer and the JSON reader both walk.
#pragma once

#include <concepts>
#include <type_traits>

#include "harness/contract/report.h"

namespace assay::json {

// `Value` is the struct, const when writing; `visit(name, member)` is called in the order of
// harness/contract/report.h. A member that came after reports were first written carries `added`, and one
// that is mostly empty `may_lack`: where a report does not have it, it keeps its default.

struct Added {};
inline constexpr Added added;
inline constexpr Added may_lack;

template <class T, class Struct>
concept MaybeConst = std::same_as<std::remove_const_t<T>, Struct>;

template <MaybeConst<MoeConfig> Value, class Visit>
void members(Value& value, Visit&& visit) {
  for_each_member(value, visit);
}

template <MaybeConst<Element> Value, class Visit>
void members(Value& value, Visit&& visit) {
  visit("at", value.at);
  visit("out", value.out);
  visit("ref", value.ref);
  visit("low", value.low);
  visit("high", value.high);
  visit("delta", value.delta);
  visit("a_priori", value.a_priori, added);
  visit("running", value.running, added);
  visit("magnitude", value.magnitude);
  visit("ratio", value.ratio);
  visit("out_bits", value.out_bits);
  visit("ref_bits", value.ref_bits);
  visit("ulps", value.ulps);
}

template <MaybeConst<StatisticalTest> Value, class Visit>
void members(Value& value, Visit&& visit) {
  visit("measure", value.measure);
  visit("over", value.over);
  visit("members", value.members);
  visit("observed", value.observed);
  visit("expected", value.expected);
  visit("limit", value.limit);
  visit("log10_chance", value.log10_chance);
  visit("log10_share", value.log10_share);
  visit("beyond", value.beyond);
}

template <MaybeConst<Statistics> Value, class Visit>
void members(Value& value, Visit&& visit) {
  visit("units", value.units);
  visit("unit_count", value.unit_count);
  visit("z2", value.z2);
  visit("z2_of_rounding", value.z2_of_rounding);
  visit("max_contract_ulps", value.max_contract_ulps);
  visit("max_contract_ulps_at", value.max_contract_ulps_at);
  visit("ulp_histogram", value.ulp_histogram);
  visit("ulps_inward", value.ulps_inward, added);
  visit("tests", value.tests);
  visit("suspicion", value.suspicion);
  visit("explained", value.explained);
}

template <MaybeConst<ErrorMap> Value, class Visit>
void members(Value& value, Visit&& visit) {
  visit("first_row", value.first_row, may_lack);
  visit("first_column", value.first_column, may_lack);
  visit("rows", value.rows);
  visit("columns", value.columns);
  visit("bin_rows", value.bin_rows);
  visit("bin_columns", value.bin_columns);
  visit("bands", value.bands, may_lack);
  visit("levels", value.levels);
  visit("places", value.places, may_lack);
}

template <MaybeConst<ErrorPattern> Value, class Visit>
void members(Value& value, Visit&& visit) {
  visit("map", value.map);
  visit("detail", value.detail, may_lack);
  visit("rejected", value.rejected, may_lack);
  visit("sampled", value.sampled, may_lack);
}

template <MaybeConst<KBlock> Value, class Visit>
void members(Value& value, Visit&& visit) {
  visit("begin", value.begin);
  visit("end", value.end);
  visit("missing", value.missing);
  visit("deviation", value.deviation);
}

template <MaybeConst<VacuityCheck> Value, class Visit>
void members(Value& value, Visit&& visit) {
  visit("copy", value.copy);
  visit("outcome", value.outcome);
  visit("reason", value.reason);
  visit("chained", value.chained);
}

template <MaybeConst<BoundsUsed> Value, class Visit>
void members(Value& value, Visit&& visit) {
  visit("a_priori", value.a_priori);
  visit("running", value.running);
  visit("sampled", value.sampled);
  visit("exact", value.exact);
  visit("typical", value.typical);
}

template <MaybeConst<Judgement> Value, class Visit>
void members(Value& value, Visit&& visit) {
  visit("verdict", value.verdict);
  visit("elements", value.elements);
  visit("rejected", value.rejected);
  visit("tokens", value.tokens, added);
  visit("rejected_tokens", value.rejected_tokens, added);
  visit("non_finite", value.non_finite);
  visit("mismatched", value.mismatched);
  visit("max_ratio", value.max_ratio);
  visit("where", value.where, may_lack);
  visit("worst", value.worst, may_lack);
  visit("worst_by_expert", value.worst_by_expert, may_lack);
  visit("rejected_by_expert", value.rejected_by_expert, added);
  visit("worst_rejected", value.worst_rejected, added);
  visit("pattern", value.pattern, added);
  visit("statistics", value.statistics, added);
  visit("bounds", value.bounds, added);
}

template <MaybeConst<Prediction> Value, class Visit>
void members(Value& value, Visit&& visit) {
  visit("available", value.available);
  visit("binding", value.binding);
  visit("elements", value.elements);
  visit("as_predicted", value.as_predicted);
  visit("undetermined", value.undetermined);
  visit("differing", value.differing);
  visit("accumulator", value.accumulator);
  visit("first", value.first, may_lack);
  visit("cause", value.cause, may_lack);
}

template <MaybeConst<Cause> Value, class Visit>
void members(Value& value, Visit&& visit) {
  visit("hypothesis", value.hypothesis);
  visit("sentence", value.sentence);
  visit("explained", value.explained);
  visit("every_bit", value.every_bit);
  visit("unwritten", value.unwritten, may_lack);
  visit("k_blocks", value.k_blocks, added);
}

template <MaybeConst<FieldResult> Value, class Visit>
void members(Value& value, Visit&& visit) {
  visit("field", value.field);
  visit("dtype", value.dtype, added);
  visit("verdict", value.verdict);
  visit("origin", value.origin);
  visit("upstream", value.upstream, may_lack);
  visit("isolated", value.isolated);
  visit("chained", value.chained);
  visit("isolated_bits", value.isolated_bits);
  visit("chained_bits", value.chained_bits);
  visit("causes", value.causes, added);
  visit("vacuity", value.vacuity, added);
  visit("notes", value.notes, may_lack);
}

template <MaybeConst<RoutingFlip> Value, class Visit>
void members(Value& value, Visit&& visit) {
  visit("token", value.token);
  visit("candidate_only", value.candidate_only);
  visit("reference_only", value.reference_only);
  visit("gap", value.gap);
  visit("bound", value.bound);
  visit("admissible", value.admissible);
  visit("noise", value.noise, added);
  visit("tier", value.tier, added);
}

template <MaybeConst<CaseResult> Value, class Visit>
void members(Value& value, Visit&& visit) {
  visit("problem", value.problem);
  visit("candidate", value.candidate);
  visit("producer", value.producer);
  visit("device", value.device);
  visit("contract", value.contract);
  visit("accumulators", value.accumulators);
  visit("config", value.config);
  visit("tokens", value.tokens);
  visit("seed", value.seed);
  visit("verdict", value.verdict);
  visit("headline", value.headline);
  visit("first_own_error", value.first_own_error);
  visit("own_error_place", value.own_error_place, added);
  visit("fields", value.fields);
  visit("expert_load", value.expert_load);
  visit("flips", value.flips);
  visit("remarks", value.remarks);
  visit("replay", value.replay);
  visit("explain", value.explain, added);
  visit("minimize", value.minimize, added);
  visit("seconds", value.seconds);
  visit("multiply_adds", value.multiply_adds);
  visit("reference_values", value.reference_values, added);
  visit("confirmed_values", value.confirmed_values, added);
}

template <MaybeConst<Report> Value, class Visit>
void members(Value& value, Visit&& visit) {
  visit("title", value.title);
  visit("command", value.command);
  visit("created", value.created);
  visit("environment", value.environment);
  visit("cases", value.cases);
  visit("seconds", value.seconds);
  visit("peak_memory_bytes", value.peak_memory_bytes);
}

// How many members each struct has. A structured binding must name them all, so a member that is added to
// harness/contract/report.h and forgotten here does not compile.
inline void every_member_is_listed(MoeConfig& a, Element& b, Judgement& c, Prediction& d, FieldResult& e,
                                   RoutingFlip& f, CaseResult& g, Report& h, Cause& i, StatisticalTest& j,
                                   Statistics& k, VacuityCheck& l, BoundsUsed& m, ErrorMap& n,
                                   ErrorPattern& o, KBlock& p) {
  [[maybe_unused]] auto& [a1, a2, a3, a4, a5] = a;
  [[maybe_unused]] auto& [b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13] = b;
  [[maybe_unused]] auto& [c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15, c16] = c;
  [[maybe_unused]] auto& [d1, d2, d3, d4, d5, d6, d7, d8, d9] = d;
  [[maybe_unused]] auto& [e1, e2, e3, e4, e5, e6, e7, e8, e9, e10, e11, e12] = e;
  [[maybe_unused]] auto& [f1, f2, f3, f4, f5, f6, f7, f8] = f;
  [[maybe_unused]] auto& [g1, g2, g3, g4, g5, g6, g7, g8, g9, g10, g11, g12, g13, g14, g15, g16, g17, g18,
                          g19, g20, g21, g22, g23, g24] = g;
  [[maybe_unused]] auto& [h1, h2, h3, h4, h5, h6, h7] = h;
  [[maybe_unused]] auto& [i1, i2, i3, i4, i5, i6] = i;
  [[maybe_unused]] auto& [j1, j2, j3, j4, j5, j6, j7, j8, j9] = j;
  [[maybe_unused]] auto& [k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11] = k;
  [[maybe_unused]] auto& [l1, l2, l3, l4] = l;
  [[maybe_unused]] auto& [m1, m2, m3, m4, m5] = m;
  [[maybe_unused]] auto& [n1, n2, n3, n4, n5, n6, n7, n8, n9] = n;
  [[maybe_unused]] auto& [o1, o2, o3, o4] = o;
  [[maybe_unused]] auto& [p1, p2, p3, p4] = p;
}

}  // namespace assay::json
