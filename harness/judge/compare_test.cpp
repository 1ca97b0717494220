// Comparison of fields of every kind of row, with numbers by hand.
#include "harness/judge/compare.h"

#include <vector>

#include <doctest/doctest.h>

#include "harness/judge/statistics.h"

using namespace assay;

namespace {

const Sizes kSizes{{4, 2, 3, 1, true}, 2};  // H = 4, I = 2, E = 3, K = 1, T = 2

/// Element i is i + 1, give or take 0.01.
struct Counted {
  std::vector<Interval> reference;
  std::vector<Bf16> out;
  explicit Counted(std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      const double x = static_cast<double>(i + 1);
      reference.emplace_back(x, x - 0.01, x + 0.01, 0.001);
      out.push_back(round_to_bf16(x));
    }
  }
};

using At = std::vector<std::pair<std::string, std::int64_t>>;

}  // namespace

TEST_SUITE("compare") {
  TEST_CASE("a wrong element of an expert's matrix is named by expert, row and column") {
    Counted d(24);  // [3, 4, 2]
    d.out[13] = round_to_bf16(15.0);
    const Judgement judgement = compare_rounded({Field::d_down_proj, kSizes, nullptr}, d.out, d.reference);
    CHECK(judgement.elements == 24);
    CHECK(judgement.rejected == 1);
    REQUIRE(judgement.worst);
    CHECK(judgement.worst->at == At{{"expert", 1}, {"row", 2}, {"col", 1}});
    // Neighbours of 15 are 1/16 away: 1 / (0.01 + 1/32).
    CHECK(judgement.max_ratio == doctest::Approx(1.0 / 0.04125));
    REQUIRE(judgement.worst_by_expert.size() == 3);
    CHECK(judgement.worst_by_expert[0] == std::pair<std::int64_t, double>{0, 0.0});
    CHECK(judgement.worst_by_expert[1].second == judgement.max_ratio);
    CHECK(judgement.worst_by_expert[2] == std::pair<std::int64_t, double>{2, 0.0});
  }

  TEST_CASE("every kind of row knows its expert and its slot") {
    Routing routing;
    routing.selected = {2, 0};
    routing.gather = {1, 0};
    routing.offsets = {0, 1, 1, 2};
    const auto context = [&](Field field) { return CompareContext{field, kSizes, &routing}; };
    CHECK(expert_of_row(context(Field::d_first_gemm), 1) == 2);
    CHECK(slot_of_row(context(Field::d_first_gemm), 1) == 0);
    CHECK(expert_of_row(context(Field::hidden_states_unpermute), 1) == 0);
    CHECK(slot_of_row(context(Field::hidden_states_unpermute), 1) == 1);
    CHECK(expert_of_row(context(Field::d_gate), 2) == 2);
    CHECK(expert_of_row(context(Field::d_gate_up_proj), 7) == 1);  // [3, 4, 4]
    CHECK(expert_of_row(context(Field::hidden_states), 1) == -1);
    CHECK(slot_of_row(context(Field::d_gate_up_proj), 7) == -1);
    CHECK(locate(context(Field::d_gate_up_proj), 31) == At{{"expert", 1}, {"row", 3}, {"col", 3}});
    CHECK(locate(context(Field::d_second_gemm), 5) ==
          At{{"row", 1}, {"col", 1}, {"expert", 2}, {"token", 0}});
  }

  TEST_CASE("statistics of a weight's gradient name the expert whose matrix is off") {
    Counted d(24);
    for (std::size_t i = 8; i < 16; ++i) d.out[i] = round_to_bf16(1.25 * to_float(d.out[i]));
    const Statistics s = field_statistics(
        {{Field::d_down_proj, kSizes, nullptr}, Dependence::Elements, {}, 0, -14.0}, d.out, d.reference);
    bool seen = false;
    for (const auto& test : s.tests) {
      if (test.over == "expert 1") seen = true;
      CHECK(test.over.find("rows 0 to 11") == std::string::npos);  // no tile reaches into the next expert
    }
    CHECK(seen);
  }
}
