#include "harness/judge/invariance.h"

#include <doctest/doctest.h>

using namespace assay;

namespace {

const MoeConfig kConfig = {.hidden_size = 2, .moe_intermediate_size = 1, .num_experts = 2, .top_k = 1};

/// Token t of the run holds t's number, unless it is a neighbour.
FieldSet run_on(const RowNumbers& tokens) {
  const Sizes sizes = {kConfig, static_cast<std::int64_t>(tokens.size())};
  FieldSet fields;
  for (const Field field : {Field::router_logits, Field::selected_experts, Field::hidden_states}) {
    fields.set(field, Tensor(row(field).dtype, expected_shape(field, sizes)));
    Tensor& tensor = fields.at(field);
    for (std::int64_t i = 0; i < tensor.size(); ++i) {
      const std::int64_t token = tokens[static_cast<std::size_t>(i / width_of(field, sizes))];
      if (tensor.dtype() == DType::Int32)
        tensor.as<std::int32_t>()[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(token & 1);
      else
        tensor.as<Bf16>()[static_cast<std::size_t>(i)].bits = static_cast<std::uint16_t>(100 + token);
    }
  }
  return fields;
}

CaseResult passed() {
  CaseResult result;
  result.verdict = Verdict::Passed;
  result.headline = "all 3 fields pass";
  for (const Field field : {Field::router_logits, Field::selected_experts, Field::hidden_states}) {
    result.fields.emplace_back().field = field;
    result.fields.back().verdict = Verdict::Passed;
  }
  return result;
}

InvarianceChange differing(Invariant of, std::string name) {
  InvarianceChange change{.name = std::move(name), .of = of, .runs = 19, .differing_runs = 2};
  change.fields = {{Field::hidden_states, 12, 3, 768, 5}};
  change.first = Field::hidden_states;
  change.judged = Verdict::Passed;
  return change;
}

}  // namespace

TEST_SUITE("invariance") {
  TEST_CASE("the same values in another batch are the same bits, and one other bit is one token") {
    const RowNumbers base = {0, 1, 2};
    const RowNumbers larger = {2, -1, 0, 1, 2};
    const Sizes sizes = {kConfig, 3};
    const Sizes of_larger = {kConfig, 5};
    InvarianceChange change{.name = "a batch of 5", .of = Invariant::Batch};
    CHECK_FALSE(add_run(change, run_on(base), sizes, run_on(larger), of_larger, larger));
    CHECK(change.fields.size() == 3);
    CHECK_FALSE(change.differs());
    FieldSet other = run_on(larger);
    other.at(Field::hidden_states).as<Bf16>()[9].bits ^= 1;  // token 4 of the run: 2
    other.at(Field::hidden_states).as<Bf16>()[2].bits ^= 1;  // the neighbour's
    CHECK(add_run(change, run_on(base), sizes, other, of_larger, larger));
    CHECK(change.first == Field::hidden_states);
    CHECK(change.runs == 2);
    CHECK(change.differing_runs == 1);
    CHECK(change.fields.back().differing == 1);
    CHECK(change.fields.back().differing_tokens == 1);
    CHECK(change.fields.back().tokens == 8);
  }

  TEST_CASE("the first field that differs is the first in order of evaluation") {
    const RowNumbers base = {0, 1, 2};
    const Sizes sizes = {kConfig, 3};
    FieldSet other = run_on(base);
    other.at(Field::hidden_states).as<Bf16>()[0].bits ^= 1;
    other.at(Field::router_logits).as<Bf16>()[0].bits ^= 1;
    InvarianceChange change;
    CHECK(add_run(change, run_on(base), sizes, other, sizes, base));
    CHECK(change.first == Field::router_logits);
  }

  TEST_CASE("other bits run to run are unstable, those of a batch or an order are information") {
    CaseResult result = passed();
    mark_invariance(result, {differing(Invariant::Run, "run to run")}, {});
    CHECK(result.verdict == Verdict::Unstable);
    CHECK(result.fields.back().verdict == Verdict::Unstable);
    CHECK(result.headline ==
          "other bits: hidden_states of 3 of 12 tokens in 2 of 19 further runs (legal): unstable; by itself: "
          "all 3 "
          "fields pass");
    for (const Invariant of : {Invariant::Batch, Invariant::Order}) {
      result = passed();
      mark_invariance(result, {differing(of, "a batch of 16"), differing(of, "a batch of 64")},
                      {Invariant::Run});
      CHECK(result.verdict == Verdict::Passed);
      CHECK(result.headline ==
            "other bits: hidden_states of 3 of 12 tokens in a batch of 16 (legal): information, nothing was "
            "promised "
            "(and in a batch of 64); by itself: all 3 fields pass");
      CHECK(result.remarks.size() == 2);
    }
  }

  TEST_CASE("a promise that is not kept is a failure, and so is a run that is not legal") {
    for (const Invariant of : kInvariants) {
      CaseResult result = passed();
      mark_invariance(result, {differing(of, "x")}, {of});
      CHECK(result.verdict == Verdict::Failed);
      CHECK(result.fields.back().verdict == Verdict::Failed);
      CHECK(result.headline.find("was promised") != std::string::npos);
    }
    CaseResult result = passed();
    InvarianceChange wrong = differing(Invariant::Batch, "a batch of 16");
    wrong.judged = Verdict::Failed;
    wrong.judged_headline = "hidden_states is the first stage with an error of its own";
    mark_invariance(result, {wrong}, {});
    CHECK(result.verdict == Verdict::Failed);
    CHECK(result.headline.find(
              "(not legal: hidden_states is the first stage with an error of its own): that run "
              "is wrong") != std::string::npos);
    result = passed();
    wrong.judged = Verdict::Suspect;
    mark_invariance(result, {wrong}, {});
    CHECK(result.verdict == Verdict::Suspect);
    CHECK(result.headline.find("own): that run is in doubt; by itself") != std::string::npos);
  }

  TEST_CASE("where nothing differs the headline says how much was looked at") {
    CaseResult result = passed();
    InvarianceChange same{.name = "reverse", .of = Invariant::Order, .runs = 1};
    mark_invariance(result, {same}, {Invariant::Order});
    CHECK(result.verdict == Verdict::Passed);
    CHECK(result.headline ==
          "the same bits run to run, in every batch and order: 1 change, 1 run; by itself: all 3 fields "
          "pass");
  }
}
