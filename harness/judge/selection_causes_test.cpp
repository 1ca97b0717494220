#include "harness/judge/selection_causes.h"

#include <algorithm>
#include <functional>

#include <doctest/doctest.h>

using namespace assay;

namespace {

constexpr std::int64_t kTokens = 4;
constexpr std::int64_t kExperts = 6;
constexpr std::int64_t kTopK = 3;
const MoeConfig kConfig{8, 4, kExperts, kTopK, true};

// Every token has its own order of experts; none is the reverse or the neighbour of another.
const std::vector<double> kLogits = {
    2.0,  -1.5, 0.5,  1.0,  -0.25, -3.0,  // 0 3 2 | 4 1 5
    -2.0, 1.25, 3.0,  0.75, -0.5,  0.25,  // 2 1 3 | 5 4 0
    0.5,  -4.0, -1.0, 1.75, 2.5,   0.0,   // 4 3 0 | 5 2 1
    0.25, 1.5,  -2.5, -0.5, 0.75,  3.5,   // 5 1 4 | 0 3 2
};
const std::vector<std::int32_t> kRight = {0, 3, 2, 2, 1, 3, 4, 3, 0, 5, 1, 4};

LogitModel logits_of(const std::vector<double>& values) {
  std::vector<Bf16> stored;
  for (const double x : values) stored.push_back(round_to_bf16(x));
  return exact_logits(stored);
}

std::vector<Cause> causes(const std::vector<std::int32_t>& found, const std::vector<double>& stored = kLogits,
                          std::vector<Interval> unrounded = {}) {
  const LogitModel logits = logits_of(stored);
  return causes_of_selection({kConfig, kContracts[0], logits, unrounded, found});
}

std::string said(const std::vector<std::int32_t>& found) {
  const auto all = causes(found);
  if (all.empty()) return "";
  CHECK(all.front().every_bit);
  return all.front().sentence;
}

/// Right, but for what `change` makes of a token's ids.
std::vector<std::int32_t> with(const std::function<void(std::int64_t, std::span<std::int32_t>)>& change) {
  std::vector<std::int32_t> found = kRight;
  for (std::int64_t t = 0; t < kTokens; ++t)
    change(t, std::span(found).subspan(static_cast<std::size_t>(t * kTopK), kTopK));
  return found;
}

}  // namespace

TEST_SUITE("selection_causes") {
  TEST_CASE("nothing is said of a right choice") { CHECK(said(kRight) == ""); }

  TEST_CASE("tokens and ids are counted apart") {
    const auto found = with([](std::int64_t t, auto ids) {
      if (t > 1) std::ranges::reverse(ids);
    });
    const auto check = check_selection(kConfig, kContracts[0], logits_of(kLogits), found);
    CHECK(check.judgement.elements == 12);
    CHECK(check.judgement.rejected == 4);  // the middle one of three stays
    CHECK(check.judgement.tokens == 4);
    CHECK(check.judgement.rejected_tokens == 2);
    CHECK(rejected_in_words(check.judgement) == "2 of 4 tokens, 4 of 12 ids");
  }

  TEST_CASE("the smallest, and the right set in another order") {
    CHECK(said({5, 1, 4, 0, 4, 5, 1, 2, 5, 2, 3, 0}) == "the smallest logits are chosen, smallest first");
    CHECK(said({4, 1, 5, 5, 4, 0, 5, 2, 1, 0, 3, 2}) ==
          "the smallest logits are chosen, the largest of them first");
    CHECK(said(with([](auto, auto ids) { std::ranges::reverse(ids); })) ==
          "the right experts, in ascending order of their logits");
    CHECK(said(with([](auto, auto ids) { std::ranges::sort(ids); })) ==
          "the right experts, in the order of their numbers");
    CHECK(said(with([](auto t, auto ids) {
            if (t == 2) std::swap(ids[0], ids[1]);
          })) == "the right experts, in another order, for token 2");
  }

  TEST_CASE("where all experts are chosen, the smallest first is the whole order reversed") {
    const MoeConfig all{8, 4, 4, 4, true};
    const LogitModel logits = logits_of({1.0, 3.0, -1.0, 0.5});
    const std::vector<std::int32_t> found = {2, 3, 0, 1};
    const auto causes = causes_of_selection({all, kContracts[0], logits, {}, found});
    REQUIRE(!causes.empty());
    CHECK(causes.front().sentence ==
          "the smallest logits are taken first (all experts are chosen, in reverse order)");
    CHECK(rejected_in_words(check_selection(all, kContracts[0], logits, found).judgement) ==
          "1 of 1 tokens, 4 of 4 ids");
  }

  TEST_CASE("ids that name no expert, or one twice, are shown with their token") {
    CHECK(said(with([](auto, auto ids) {
            for (auto& id : ids) ++id;
          })) == "experts are counted from 1 (token 0: 1, 4, 3, where 0, 3, 2 is right)");
    CHECK(said(with([](auto t, auto ids) {
            if (t == 1) ids[2] = ids[0];
          })) == "token 1 names expert 2 in slots 0, 2");
    CHECK(said(with([](auto t, auto ids) {
            if (t > 1) ids[2] = ids[0];
          })) == "2 tokens name an expert twice or more (token 2 names expert 4 in slots 0, 2)");
    CHECK(said(with([](auto t, auto ids) {
            if (t == 3) ids[1] = 6;
          })) == "ids are out of range 0 to 5 (token 3, slot 1: 6), for token 3");
    CHECK(said({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}) == "every id is 0");
    CHECK(said({0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2}) == "every token has the experts 0, 1, 2");
  }

  TEST_CASE("a choice from other logits is traced to them") {
    CHECK(said({2, 1, 3, 4, 3, 0, 5, 1, 4, 0, 3, 2}) == "the choice is that of the token after");
    CHECK(said({5, 1, 4, 0, 3, 2, 2, 1, 3, 4, 3, 0}) == "the choice is that of the token before");
    CHECK(said({0, 2, 4, 3, 1, 3, 5, 0, 2, 3, 1, 4}) == "");  // nobody's
    std::vector<std::int32_t> turned(kRight.size());
    for (std::size_t t = 0; t < 4; ++t)
      for (std::size_t j = 0; j < 3; ++j) turned[j * 4 + t] = kRight[t * 3 + j];
    CHECK(said(turned) == "the ids lie [K, T], not [T, K]");
  }

  TEST_CASE("logits that are not rounded, and probabilities that are, choose otherwise") {
    // Experts 0 and 3 of token 0 are 1.0 and 1.0078125 once stored, and the other way round before.
    std::vector<double> stored = kLogits;
    stored[0] = 1.0;
    stored[3] = 1.0078125;
    std::vector<Interval> exact;
    for (const double x : stored) exact.push_back({x, x, x});
    exact[0] = {1.005, 1.005, 1.005};
    exact[3] = {1.0041, 1.0041, 1.0041};
    auto all = causes(kRight, stored, exact);
    REQUIRE(!all.empty());
    const auto is = [](std::string_view id) { return [id](const Cause& c) { return c.hypothesis == id; }; };
    CHECK(std::ranges::any_of(all, is("logits_unrounded")));
    // Probabilities of about 1/3: bf16 has steps of 2^-9 there, more than 0.0078 of the value.
    stored[0] = 3.0;
    stored[3] = 3.015625;
    std::vector<std::int32_t> lowest_first = kRight;
    all = causes(lowest_first, stored);
    REQUIRE(!all.empty());
    CHECK(std::ranges::none_of(all, is("logits_unrounded")));
  }

  TEST_CASE("the same ranks in every token are told") {
    CHECK(said({0, 3, 4, 2, 1, 5, 4, 3, 5, 5, 1, 0}) == "chosen are the experts of rank 1, 2, 4");
  }
}
