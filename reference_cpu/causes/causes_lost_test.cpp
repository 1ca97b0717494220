// What the merge lost, what NaN became, and where an error is beside legal differences.
#include <random>

#include "reference_cpu/causes/wrong_candidates.h"

using namespace assay;

namespace {

Problem layer() { return random_layer(Data::Gaussian, {64, 32, 8, 4, true}, 24, 5); }

/// What is said of an output that lacks the slots `lost(token, slot, expert, rank in the expert)`.
template <class Lost>
std::string lost_said(Lost lost) {
  const Problem problem = layer();
  const Candidate right = predicted(problem);
  Candidate without = right;
  const auto selected = right.fields.at(Field::selected_experts).as<std::int32_t>();
  const auto rows = without.fields.at(Field::hidden_states_unpermute).as<Bf16>();
  std::vector<std::int64_t> seen(8);
  for (std::size_t s = 0; s < selected.size(); ++s) {
    const auto expert = static_cast<std::size_t>(selected[s]);
    if (lost(static_cast<std::int64_t>(s / 4), static_cast<std::int64_t>(s % 4), selected[s], seen[expert]++))
      std::ranges::fill(rows.subspan(s * 64, 64), Bf16{});
  }
  predict_again(problem, without, Field::hidden_states);
  Candidate wrong = right;
  wrong.fields.set(Field::hidden_states, without.fields.at(Field::hidden_states));
  const auto causes = causes_of(problem, wrong, Field::hidden_states);
  REQUIRE(!causes.empty());
  CHECK(causes.front().every_bit);
  return causes.front().sentence;
}

}  // namespace

TEST_SUITE("causes_lost") {
  TEST_CASE("slots that are left out are told by what they share") {
    using T = std::int64_t;
    CHECK(lost_said([](T, T j, auto, T) { return j == 1; }) == "slot 1 is left out of the sum");
    CHECK(lost_said([](T, T j, auto, T) { return j >= 2; }) == "slots 2 to 3 are left out of the sum");
    CHECK(lost_said([](T, T, auto e, T) { return e == 3 || e == 5; }) ==
          "the slots of experts 3, 5 are left out of the sum");
    CHECK(lost_said([](T, T, auto, T rank) { return rank >= 6; }) ==
          "of each expert's rows only the first 6 are added");
    CHECK(lost_said([](T t, T j, auto, T) { return (t == 3 && j == 1) || (t == 9 && j != 2); }) ==
          "4 slots are left out of the sum (token 3: slot 1)");
    CHECK(lost_said([](T t, T j, auto, T) { return t == 5 && j == 2; }).starts_with("slot 2 is left out"));
  }

  TEST_CASE("one slot's weight for all is recognised") {
    const Problem problem = layer();
    const Candidate right = predicted(problem);
    Candidate with_one = right;
    const auto weights = with_one.fields.at(Field::topk_weights).as<Bf16>();
    for (std::size_t s = 0; s < weights.size(); ++s) weights[s] = weights[s / 4 * 4 + 2];
    predict_again(problem, with_one, Field::hidden_states);
    Candidate wrong = right;
    wrong.fields.set(Field::hidden_states, with_one.fields.at(Field::hidden_states));
    CHECK(first_sentence(causes_of(problem, wrong, Field::hidden_states)) ==
          "all slots have slot 2's weight");
  }

  TEST_CASE("sums in bf16 in no fixed order are recognised") {
    const Problem problem = layer();
    const Candidate right = predicted(problem);
    const auto rows = right.fields.at(Field::hidden_states_unpermute).as<Bf16>();
    const auto weights = right.fields.at(Field::topk_weights).as<Bf16>();
    std::mt19937 random(3);
    Candidate wrong = right;
    const auto out = wrong.fields.at(Field::hidden_states).as<Bf16>();
    for (std::size_t t = 0; t < 24; ++t)
      for (std::size_t c = 0; c < 64; ++c) {
        std::size_t order[] = {0, 1, 2, 3};
        std::ranges::shuffle(order, random);
        float sum = 0.0f;
        for (const auto j : order) {
          const float term = to_float(rows[(t * 4 + j) * 64 + c]) * to_float(weights[t * 4 + j]);
          sum = to_float(round_to_bf16(sum + to_float(round_to_bf16(term))));
        }
        out[t * 64 + c] = round_to_bf16(sum);
      }
    CHECK(first_sentence(causes_of(problem, wrong, Field::hidden_states)) ==
          "slots are added in bf16, in no fixed order");
  }

  TEST_CASE("NaN that is swallowed, and NaN that spreads, are told by their rows") {
    Problem problem = layer();
    const Bf16 nan{0x7fc0};
    std::ranges::fill(problem.input.as<Bf16>().subspan(5 * 64, 64), nan);  // token 5
    const Candidate right = predicted(problem);
    for (const Field field : {Field::router_logits, Field::topk_weights, Field::hidden_states}) {
      CAPTURE(name(field));
      const auto swallowed = causes_with(problem, right, field, [](auto r, auto c, const auto& values) {
        const Bf16 x = values.row(r)[static_cast<std::size_t>(c)];
        return r == 5 ? round_to_bf16(0.25f) : x;
      });
      CHECK(first_sentence(swallowed) == "NaN swallowed in token 5");
      const auto spread = causes_with(problem, right, field, [&](auto r, auto c, const auto& values) {
        return r == 6 || r == 7 ? nan : values.row(r)[static_cast<std::size_t>(c)];
      });
      CHECK(first_sentence(spread) == "NaN or infinity spreads from token 5 to tokens 6 to 7");
    }
  }

  TEST_CASE("accepted elements that merely differ do not hide the rejected ones' cause") {
    // The last 8 of K are missing in four rows; eight other rows hold one element two neighbours off, which
    // cancellation makes legal.
    const Problem problem = random_layer(Data::Gaussian, {64, 256, 8, 4, true}, 24, 7);
    const Candidate right = predicted(problem);
    const Candidate tail =
        predict_forward(problem, find_contract("hf"), every_product(kHopper),
                        {.kind = FaultKind::DropLastK, .field = Field::second_gemm, .amount = 8});
    Candidate wrong = right;
    const auto out = wrong.fields.at(Field::second_gemm).as<Bf16>();
    const auto from = tail.fields.at(Field::second_gemm).as<Bf16>();
    for (std::size_t i = 0; i < 4 * 64; ++i) out[20 * 64 + i] = from[20 * 64 + i];
    const auto upstream = usable_upstream(problem, right.fields);
    const auto intervals =
        make_reference(problem, upstream, find_contract("hf"), {}, true)
            ->bounded(Field::second_gemm, Mode::Isolated, all_rows(Field::second_gemm, problem.sizes()));
    int beside = 0;
    for (std::size_t r = 30; r < 96 && beside < 8; ++r)
      for (std::size_t c = 0; c < 64; ++c) {
        const std::size_t at = r * 64 + c;
        const Bf16 high = round_to_bf16(intervals[at].high);
        const Bf16 low = round_to_bf16(intervals[at].low);
        if (std::abs(ordinal(high) - ordinal(out[at])) < 2 && std::abs(ordinal(low) - ordinal(out[at])) < 2)
          continue;
        out[at] = std::abs(ordinal(high) - ordinal(out[at])) < 2 ? low : high;
        ++beside;
        break;
      }
    CHECK(beside == 8);
    const auto causes =
        make_reference(problem, usable_upstream(problem, wrong.fields), find_contract("hf"), {}, true)
            ->causes(Field::second_gemm);
    REQUIRE(!causes.empty());
    CHECK(causes.front().sentence.starts_with("the last 8 of K are missing in rows 20 to 23"));
    CHECK(names_the_error(causes.front()));
  }
}
