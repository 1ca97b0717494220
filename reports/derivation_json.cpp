#include <cmath>

#include <nlohmann/json.hpp>

#include "harness/host/json_text.h"
#include "reports/derivation_report.h"

namespace assay {
namespace {

using Json = nlohmann::ordered_json;

Json number(double x) {
  if (std::isnan(x)) return "NaN";
  if (std::isinf(x)) return x > 0 ? "Infinity" : "-Infinity";
  return x;
}

template <class T>
Json optional_number(const std::optional<T>& x) {
  return x ? number(static_cast<double>(*x)) : Json();
}

Json interval(const Interval& x) {
  return {
      {"ref", number(x.ref)}, {"low", number(x.low)}, {"high", number(x.high)}, {"noise", number(x.noise)}};
}

template <class Row, class Write>
Json array(const std::vector<Row>& rows, Write write) {
  Json out = Json::array();
  for (const auto& row : rows) out.push_back(write(row));
  return out;
}

}  // namespace

std::string to_json(const Derivation& d) {
  Json json = {{"schema", "assay-derivation"},
               {"version", 1},
               {"field", name(d.field)},
               {"mode", d.mode == Mode::Isolated ? "isolated" : "chained"},
               {"problem", d.problem},
               {"candidate", d.candidate},
               {"contract", d.contract},
               {"accumulator", d.accumulator},
               {"from", d.from}};
  json["at"] = Json::object();
  for (const auto& [axis, index] : d.at) json["at"][axis] = index;
  json["verdict"] = name(d.verdict);
  json["sentence"] = d.sentence;
  json["remarks"] = d.remarks;
  json["out"] = optional_number(d.out);
  json["out_bits"] = d.out_bits;
  json["dtype"] = row(d.dtype).name;
  json["value"] = interval(d.value);
  json["stored"] = d.store == Store::Bf16;
  json["low"] = number(d.low);
  json["high"] = number(d.high);
  json["accepted_count"] = d.accepted_count;
  json["accepted"] = array(d.accepted, number);
  json["predicted"] =
      d.predicted ? Json{{"bits", d.predicted->bits}, {"undetermined", d.predicted->undetermined}} : Json();
  json["ratio"] = number(d.ratio);
  json["ulps"] = d.ulps;
  json["operands"] = d.operands;
  json["terms"] = d.terms;
  json["magnitude"] = number(d.magnitude);
  json["largest"] = array(d.largest, [](const ProductTerm& t) {
    return Json{{"k", t.k},
                {"a", number(t.a)},
                {"width", number(t.width)},
                {"b", number(t.b)},
                {"right_width", number(t.right_width)},
                {"product", number(t.product)},
                {"token", t.token},
                {"slot", t.slot}};
  });
  json["sums"] = array(d.sums, [](const PartialSum& s) {
    return Json{{"begin", s.begin},
                {"end", s.end},
                {"exact", number(s.exact)},
                {"running", optional_number(s.running)},
                {"exponent", s.exponent ? Json(*s.exponent) : Json()}};
  });
  json["steps"] = array(d.steps, [](const DerivationStep& s) {
    return Json{{"what", s.what},
                {"formula", s.formula},
                {"value", interval(s.value)},
                {"predicted", optional_number(s.predicted)}};
  });
  json["slots_are"] = d.slots_are;
  json["slots"] = array(d.slots, [](const SlotTerm& s) {
    return Json{{"slot", s.slot},
                {"expert", s.expert},
                {"row", s.row},
                {"weight", s.weight ? interval(*s.weight) : Json()},
                {"value", interval(s.value)},
                {"product", interval(s.product)},
                {"predicted", optional_number(s.predicted)}};
  });
  json["ranking"] = array(d.ranking, [](const RankedExpert& e) {
    return Json{{"expert", e.expert},
                {"logit", number(e.logit)},
                {"probability", number(e.probability)},
                {"predicted", optional_number(e.predicted)},
                {"gap", number(e.gap)},
                {"slot", e.slot},
                {"predicted_slot", e.predicted_slot}};
  });
  json["running_words"] = d.running_words;
  json["running"] =
      array(d.running, [](const BoundPart& b) { return Json{{"what", b.what}, {"value", number(b.value)}}; });
  json["bound"] = array(d.bound, [](const BoundPart& part) {
    return Json{{"what", part.what}, {"value", number(part.value)}};
  });
  // Names of problems and candidates may hold any bytes.
  return json_text(json, 2) + "\n";
}

}  // namespace assay
