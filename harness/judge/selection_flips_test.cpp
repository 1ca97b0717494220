#include "harness/judge/selection_flips.h"

#include <cmath>
#include <vector>

#include <doctest/doctest.h>

using namespace assay;

namespace {

const MoeConfig kConfig{4, 2, 3, 1, true};  // three experts, one chosen

/// Tokens whose experts 0 and 1 are 0.01 apart.
LogitModel tokens(std::size_t count, double bound, double noise, Store store = Store::Unrounded) {
  std::vector<Interval> reference;
  for (std::size_t t = 0; t < count; ++t)
    for (const double l : {1.0, 0.99, 0.0})
      reference.push_back({l + 1e-9 * static_cast<double>(t), l - bound, l + bound + 1e-6, noise});
  return model_logits(reference, store);
}

RoutingTier tier(double bound, double noise) {
  const std::vector<std::int32_t> second = {1};
  const auto check = check_selection(kConfig, kContracts[0], tokens(1, bound, noise), second);
  REQUIRE(check.flips.size() == 1);
  CHECK(check.flips[0].admissible == (check.judgement.rejected == 0));
  CHECK(std::fabs(check.flips[0].gap - 0.01) < 1e-6);
  return check.flips[0].tier;
}

}  // namespace

TEST_SUITE("selection") {
  TEST_CASE("tiers: 6 times the noise explains, only the bound is suspicious, beyond it is wrong") {
    CHECK(tier(0.006, 0.001) == RoutingTier::Admissible);
    CHECK(tier(0.006, 0.0005) == RoutingTier::Suspicious);
    CHECK(tier(0.004, 0.0005) == RoutingTier::Failed);
    CHECK(tier(0.006, 0.0) == RoutingTier::Admissible);  // not modelled: nothing to hold it against
    const auto tied = exact_logits(std::vector<Bf16>(3));
    const std::vector<std::int32_t> second = {1};
    const auto check = check_selection(kConfig, kContracts[0], tied, second);
    REQUIRE(check.flips.size() == 1);
    CHECK(check.flips[0].tier == RoutingTier::ExactTie);
  }

  TEST_CASE("storing can move a logit by one ulp and no less") {
    // 1 is 2^-8 below the boundary above and 2^-9 above the one below; a noise of 2^-12 crosses the latter
    // with a chance of 1/64.
    const auto model = model_logits(std::vector<Interval>{{1.0, 0.9, 1.1, 0x1p-12}}, Store::Bf16);
    CHECK(std::fabs(model.bound[0].noise - 0x1p-7 * std::sqrt(1.0 / 64.0)) < 1e-12);
    CHECK(model.probable[0].low == 1.0);
    CHECK(model.probable[0].high == 1.0);
  }

  TEST_CASE("flips are counted against what the noise explains") {
    // Gap 0.01, both noises 0.001: a chance of at most 0.04 per token, 40 of 1,000.
    const auto model = tokens(1000, 0.02, 0.001);
    const auto flipped = [&](std::size_t count) {
      std::vector<RoutingFlip> flips(count);
      for (std::size_t i = 0; i < count; ++i) {
        flips[i].token = static_cast<std::int64_t>(i);
        flips[i].tier = RoutingTier::Admissible;
      }
      return flip_statistics(kConfig, model, flips, std::log(1e-6));
    };
    const auto few = flipped(41);
    const auto many = flipped(200);
    CHECK(std::fabs(few.tests[0].expected - 0.04) < 1e-4);
    CHECK(few.suspicion.empty());
    CHECK(many.tests[0].beyond);
    CHECK(many.suspicion.find("20 % of tokens took other experts for no exact tie") == 0);
    std::vector<RoutingFlip> suspicious(30);
    for (std::size_t i = 0; i < 30; ++i)
      suspicious[i] = {static_cast<std::int64_t>(i), {1}, {0}, 0.01, 0.04, true, 0.002,
                       RoutingTier::Suspicious};
    CHECK(flip_statistics(kConfig, tokens(1000, 0.02, 0.0001), suspicious, std::log(1e-6)).tests[1].beyond);
    for (auto& flip : suspicious) flip.tier = RoutingTier::ExactTie;
    CHECK(flip_statistics(kConfig, tokens(1000, 0.02, 0.0001), suspicious, std::log(1e-6)).suspicion.empty());
  }

  TEST_CASE("the lowest index is demanded of logits that are surely equal only") {
    PrecisionContract lowest = kContracts[0];
    lowest.ties = TieRule::LowestIndex;
    const std::vector<std::int32_t> second = {1};
    CHECK(check_selection(kConfig, lowest, exact_logits(std::vector<Bf16>(3)), second).judgement.rejected ==
          1);
    const auto unsure = model_logits(std::vector<Interval>(3, Interval{1.0, 0.99, 1.01, 0.001}), Store::Bf16);
    CHECK(check_selection(kConfig, lowest, unsure, second).judgement.rejected == 0);
  }
}
