#include "harness/judge/vacuity.h"

#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "harness/judge/selection_flips.h"

using namespace assay;

namespace {

const Sizes kSizes{{4, 2, 3, 1, true}, 2};
CompareContext logits_context() { return {Field::router_logits, kSizes, nullptr}; }  // [2, 3]

std::vector<Interval> around(const std::vector<double>& values, double delta) {
  std::vector<Interval> reference;
  for (const double x : values) reference.push_back({x, x - delta, x + delta, 0.0});
  return reference;
}

std::string outcomes(const std::vector<VacuityCheck>& checks) {
  std::string text;
  for (const auto& check : checks)
    text += (text.empty() ? "" : "; ") + check.copy + ": " + std::string(name(check.outcome)) + ", " +
            check.reason;
  return text;
}

}  // namespace

TEST_SUITE("vacuity") {
  TEST_CASE("a sharp interval rejects every wrong copy") {
    CHECK(outcomes(vacuity_of_rounded(logits_context(), around({1, 2, 3, 4, 5, 6}, 0.01), {})) ==
          "zeros: rejected, interval; rows rotated by one: rejected, interval; half-scaled: rejected, "
          "interval; columns shifted by one: rejected, interval");
    CHECK(in_words(vacuity_of_rounded(logits_context(), around({1, 2, 3, 4, 5, 6}, 0.01), {})).empty());
  }

  TEST_CASE("an interval that lets anything pass is found out, copy by copy") {
    const auto infinite = vacuity_of_rounded(
        logits_context(), around({1, 2, 3, 4, 5, 6}, std::numeric_limits<double>::infinity()), {});
    for (const auto& check : infinite) CHECK(check.outcome == VacuityOutcome::WouldPass);
    const auto wide = vacuity_of_rounded(logits_context(), around({1, 1.5, 1.25, 1.5, 1, 1.25}, 0.6), {});
    CHECK(wide[0].outcome == VacuityOutcome::Rejected);
    CHECK(wide[1].outcome == VacuityOutcome::WouldPass);
    CHECK(in_words(wide) ==
          "wrong copies of the reference (rows rotated by one, columns shifted by one) would have passed "
          "this very check");
  }

  TEST_CASE("bits that bind reject what the interval lets pass; undetermined ones do not") {
    const auto reference = around({1, 1.5, 1.25, 1.5, 1, 1.25}, 10.0);
    std::vector<PredictedBits> bits;
    for (const auto& x : reference) bits.push_back({round_to_bf16(x.ref).bits, false});
    for (const auto& check : vacuity_of_rounded(logits_context(), reference,
                                                [&] { return std::span<const PredictedBits>(bits); }))
      CHECK(check.reason == "predicted bits");
    for (auto& b : bits) b.undetermined = true;
    for (const auto& check : vacuity_of_rounded(logits_context(), reference,
                                                [&] { return std::span<const PredictedBits>(bits); }))
      CHECK(check.outcome == VacuityOutcome::WouldPass);
  }

  TEST_CASE("a copy that equals the reference proves nothing either way, and is listed as such") {
    const auto zeros = vacuity_of_rounded(logits_context(), around({0, 0, 0, 0, 0, 0}, 0.0), {});
    REQUIRE(zeros.size() == 4);
    for (const auto& check : zeros) CHECK(check.outcome == VacuityOutcome::NotApplicable);
    const auto rows = vacuity_of_rounded(logits_context(), around({1, 2, 3, 1, 2, 3}, 0.001), {});
    CHECK(rows[1].outcome == VacuityOutcome::NotApplicable);
    CHECK(rows[3].outcome == VacuityOutcome::Rejected);
    CHECK(vacuity_of_rounded(logits_context(), {}, {}).empty());
    constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
    const auto nan =
        vacuity_of_rounded(logits_context(), around({kNan, -kNan, kNan, -kNan, -kNan, kNan}, 0.0), {});
    for (const std::size_t copy : {1u, 2u, 3u}) CHECK(nan[copy].outcome == VacuityOutcome::NotApplicable);
  }

  TEST_CASE("integers must match exactly, so only equal copies pass") {
    const CompareContext counts{Field::token_counts_by_expert, kSizes, nullptr};
    CHECK(outcomes(vacuity_of_integers(counts, std::vector<std::int32_t>{1, 0, 1})) ==
          "zeros: rejected, exact match; rotated by one: rejected, exact match");
    CHECK(vacuity_of_integers(counts, std::vector<std::int32_t>{2, 2, 2})[1].outcome ==
          VacuityOutcome::NotApplicable);
  }

  TEST_CASE("selections: a legal choice among ties is no vacuous check, a choice that only slack allows is") {
    const MoeConfig config{4, 2, 3, 1, true};
    const PrecisionContract contract = kContracts[0];
    const std::vector<std::int32_t> right = {0, 1};
    const auto clear = exact_logits(std::vector<Bf16>{{0x3f80}, {0}, {0}, {0}, {0x3f80}, {0}});
    for (const auto& check : vacuity_of_selection(config, contract, clear, right))
      CHECK(check.outcome == VacuityOutcome::Rejected);
    const auto tied = exact_logits(std::vector<Bf16>(6));
    for (const auto& check : vacuity_of_selection(config, contract, tied, right))
      CHECK(check.reason == "a legal choice too");
    const auto blurred = model_logits(around({1, 0.9, 0.8, 0.9, 1, 0.8}, 0.5), Store::Unrounded);
    for (const auto& check : vacuity_of_selection(config, contract, blurred, right))
      CHECK(check.outcome == VacuityOutcome::WouldPass);
  }
}
