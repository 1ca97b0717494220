#include "harness/judge/headline.h"

#include <initializer_list>
#include <utility>

#include <doctest/doctest.h>

using namespace assay;

namespace {

/// A field that was compared, with one element of ten outside where it fails by itself.
FieldResult field_with(Field field, Verdict isolated, Verdict chained) {
  FieldResult result;
  result.field = field;
  result.isolated.verdict = isolated;
  result.chained.verdict = chained;
  result.isolated.elements = 10;
  result.isolated.rejected = failed(isolated) ? 1 : 0;
  result.verdict = worst(isolated, chained);
  return result;
}

/// Of a binding prediction.
Prediction bits_of(std::int64_t elements, std::int64_t as_predicted, std::int64_t undetermined) {
  Prediction bits;
  bits.available = bits.binding = true;
  bits.elements = elements;
  bits.as_predicted = as_predicted;
  bits.undetermined = undetermined;
  bits.differing = elements - as_predicted - undetermined;
  return bits;
}

FieldResult passing(Field field) { return field_with(field, Verdict::Passed, Verdict::Passed); }

CaseResult case_of(std::initializer_list<FieldResult> fields) {
  CaseResult result;
  result.fields = fields;
  for (const FieldResult& field : result.fields) result.verdict = worst(result.verdict, field.verdict);
  result.first_own_error = first_own_error(result);
  return result;
}

}  // namespace

TEST_SUITE("headline") {
  TEST_CASE("a case without a field says that nothing was compared") {
    CHECK(headline(case_of({})) == "nothing was compared: the candidate materialises no forward field");
    FieldResult absent;
    absent.field = Field::first_gemm;
    CHECK(headline(case_of({absent})) == "nothing was compared: the candidate materialises no forward field");
  }

  TEST_CASE("what a file holds by hashes, and nobody compared, is counted beside what passes") {
    FieldResult held;
    held.field = Field::d_gate;
    held.verdict = Verdict::Unsupported;
    CHECK(headline(case_of({passing(Field::router_logits), held})) ==
          "the field passes; 1 field is held by hashes and not compared");
    FieldResult other = held;
    other.field = Field::d_down_proj;
    CHECK(headline(case_of({passing(Field::router_logits), other, held})) ==
          "the field passes; 2 fields are held by hashes and not compared");
  }

  TEST_CASE("what passes is counted, with the bits predicted from the inputs where there are any") {
    CHECK(headline(case_of({passing(Field::router_logits), passing(Field::first_gemm)})) ==
          "all 2 fields pass");
    auto predicted = passing(Field::router_logits);
    predicted.chained_bits = bits_of(12, 11, 1);
    CHECK(headline(case_of({predicted})) ==
          "the field passes; bits as predicted from the inputs alone: 11 of 12");
  }

  TEST_CASE("the first stage that fails from its own upstream is named, what only inherits is told apart") {
    const auto result = case_of({passing(Field::router_logits),
                                 field_with(Field::first_gemm, Verdict::Failed, Verdict::Failed),
                                 field_with(Field::intermediate, Verdict::Passed, Verdict::Failed),
                                 field_with(Field::second_gemm, Verdict::Failed, Verdict::Failed)});
    CHECK(result.first_own_error == Field::first_gemm);
    CHECK(headline(result) ==
          "first_gemm is the first stage with an error of its own: 1 of 10 elements outside the accepted "
          "interval; intermediate inherits it; second_gemm has an error of its own too");
  }

  TEST_CASE("a failure outranks a suspicion that stands before it") {
    const auto suspect = field_with(Field::router_logits, Verdict::Suspect, Verdict::Passed);
    CHECK(first_own_error(case_of({suspect})) == Field::router_logits);
    CHECK(first_own_error(case_of({suspect, field_with(Field::second_gemm, Verdict::Failed,
                                                       Verdict::Failed)})) == Field::second_gemm);
  }

  TEST_CASE("bits beside a prediction accuse only where the prediction binds") {
    auto field = passing(Field::first_gemm);
    field.isolated_bits = bits_of(10, 9, 0);
    field.isolated_bits.binding = false;
    CHECK_FALSE(first_own_error(case_of({field})).has_value());
    field.isolated_bits.binding = true;
    field.verdict = Verdict::Suspect;
    CHECK(headline(case_of({field})) ==
          "first_gemm is the first stage with an error of its own: 1 of 10 bits not as predicted");
  }

  TEST_CASE("a wrong shape is an error of the field's own, in the words of the intake") {
    auto field = field_with(Field::first_gemm, Verdict::NotMaterialised, Verdict::NotMaterialised);
    field.verdict = Verdict::WrongShape;
    field.notes = {"expected [4, 6], found [3, 3]"};
    CHECK(headline(case_of({field})) ==
          "first_gemm is the first stage with an error of its own: expected [4, 6], found [3, 3]");
  }

  TEST_CASE("a cause is said in place of counts, and 100 % only of one that explains every bit") {
    auto field = field_with(Field::first_gemm, Verdict::Failed, Verdict::Failed);
    Cause cause;
    cause.sentence = "the last 64 of K are missing";
    cause.explained = 0.99999;
    field.causes = {cause};
    CHECK(headline(case_of({field})) ==
          "first_gemm is the first stage with an error of its own: the last 64 of K are missing (explains "
          "99.9 % of the error)");
    field.causes.front().every_bit = true;
    CHECK(headline(case_of({field})) ==
          "first_gemm is the first stage with an error of its own: the last 64 of K are missing (explains "
          "every bit)");
  }

  TEST_CASE("a list of slots that is no permutation is said to be none, whatever else is wrong in it") {
    auto field = field_with(Field::gather_indices, Verdict::Failed, Verdict::Failed);
    field.causes = {
        {"no_permutation", "no permutation: slot 5 stands in 2 rows (3, 7), slot 0 in none", 0.2, false}};
    CHECK(headline(case_of({field})) ==
          "gather_indices is the first stage with an error of its own: 1 of 10 wrong; no permutation: slot 5 "
          "stands in 2 rows (3, 7), slot 0 in none");
  }

  TEST_CASE("an error that only the chain shows accuses no stage") {
    const auto failing = field_with(Field::hidden_states, Verdict::Passed, Verdict::Failed);
    CHECK_FALSE(first_own_error(case_of({failing})).has_value());
    CHECK(headline(case_of({failing})) ==
          "no stage has an error of its own, but hidden_states lies outside the bound carried from the "
          "inputs");
    const auto suspect = field_with(Field::hidden_states, Verdict::Passed, Verdict::Suspect);
    CHECK(headline(case_of({suspect})) ==
          "no stage has an error of its own, but hidden_states deviates from the inputs' reference more "
          "than legal implementations do");
    auto bits = suspect;
    bits.chained_bits = bits_of(10, 9, 0);
    CHECK(headline(case_of({bits})) ==
          "no stage has an error of its own, but hidden_states is not as predicted from the inputs");
  }

  TEST_CASE("checks that could not have failed are named instead of a pass") {
    auto field = passing(Field::first_gemm);
    field.verdict = Verdict::Mistrusted;
    CHECK(headline(case_of({passing(Field::router_logits), field})) ==
          "all 2 fields pass, but the check of first_gemm could not have failed: a wrong copy of the "
          "reference passes too");
  }

  TEST_CASE("totals are of one mode, over all fields") {
    auto one = passing(Field::router_logits);
    auto other = passing(Field::first_gemm);
    one.chained_bits = bits_of(12, 11, 1);
    other.chained_bits = bits_of(8, 5, 1);
    other.isolated_bits = bits_of(8, 8, 0);
    const auto chained = predicted_totals(case_of({one, other}), true);
    CHECK(chained.elements == 20);
    CHECK(chained.as_predicted == 16);
    CHECK(chained.undetermined == 2);
    CHECK(chained.differing == 2);
    CHECK(predicted_totals(case_of({one, other}), false).as_predicted == 8);
  }
}
