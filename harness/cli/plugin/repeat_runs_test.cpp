#include "harness/cli/plugin/repeat_runs.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "harness/cli/pipelines.h"
#include "harness/cli/plugin/room_images.h"

namespace assay::cli {
namespace {

// Three tokens, two of three experts each: token 0 takes 2, 0; token 1 takes 0, 1; token 2 takes 1, 2.
const Sizes kSizes = {{.hidden_size = 2, .moe_intermediate_size = 1, .num_experts = 3, .top_k = 2}, 3};
const std::vector<std::int32_t> kSelected = {2, 0, 0, 1, 1, 2};
const std::vector<Field> kWritten = {Field::selected_experts, Field::gather_indices, Field::second_gemm,
                                     Field::hidden_states_unpermute, Field::hidden_states};

/// Fields whose values name the token and slot they belong to; `reversed` is the run on the tokens in
/// reverse.
FieldSet run(bool reversed) {
  FieldSet fields;
  for (const Field field : kWritten)
    fields.set(field, Tensor(row(field).dtype, expected_shape(field, kSizes)));
  const auto selected = fields.at(Field::selected_experts).as<std::int32_t>();
  const auto original = [&](std::int64_t slot) { return reversed ? (2 - slot / 2) * 2 + slot % 2 : slot; };
  for (std::int64_t slot = 0; slot < 6; ++slot)
    selected[static_cast<std::size_t>(slot)] = kSelected[static_cast<std::size_t>(original(slot))];
  std::size_t next = 0;
  for (std::int32_t expert = 0; expert < 3; ++expert)
    for (std::int32_t slot = 0; slot < 6; ++slot)
      if (selected[static_cast<std::size_t>(slot)] == expert) {
        fields.at(Field::gather_indices).as<std::int32_t>()[next] = slot;
        for (std::size_t h = 0; h < 2; ++h)
          fields.at(Field::second_gemm).as<Bf16>()[next * 2 + h].bits =
              static_cast<std::uint16_t>(100 + original(slot) * 2 + static_cast<std::int64_t>(h));
        ++next;
      }
  for (std::int64_t slot = 0; slot < 6; ++slot)
    for (std::int64_t h = 0; h < 2; ++h) {
      const auto at = static_cast<std::size_t>(slot * 2 + h);
      fields.at(Field::hidden_states_unpermute).as<Bf16>()[at].bits =
          static_cast<std::uint16_t>(100 + original(slot) * 2 + h);
      if (slot % 2 == 0)
        fields.at(Field::hidden_states).as<Bf16>()[static_cast<std::size_t>(slot / 2 * 2 + h)].bits =
            static_cast<std::uint16_t>(10 + original(slot) + h);
    }
  return fields;
}

}  // namespace

TEST_SUITE("repeat_runs") {
  TEST_CASE("a run on the tokens in reverse is put back into their order, rows of experts by slot") {
    const auto same = reversed_differences(kWritten, run(false), run(true), kSizes);
    CHECK(same.differing.empty());
    CHECK(same.compared == kWritten);
  }

  TEST_CASE("one element that differs is found in each field, whatever order its rows have") {
    for (const Field field : {Field::second_gemm, Field::hidden_states_unpermute, Field::hidden_states}) {
      FieldSet reversed = run(true);
      reversed.at(field).as<Bf16>()[3].bits ^= 1;
      const auto found = reversed_differences(kWritten, run(false), reversed, kSizes);
      REQUIRE(found.differing.size() == 1);
      CHECK(found.differing[0].field == field);
      CHECK(found.differing[0].differing == 1);
    }
  }

  TEST_CASE("rows of experts that nobody can tell are not compared") {
    FieldSet one = run(false);
    FieldSet reversed = run(true);
    one.at(Field::gather_indices).as<std::int32_t>()[0] = 7;
    const auto found = reversed_differences(kWritten, one, reversed, kSizes);
    CHECK(std::ranges::find(found.compared, Field::second_gemm) == found.compared.end());
    CHECK(found.compared.size() == 3);
  }

  TEST_CASE("two runs that differ make field and case unstable, and the headline says it first") {
    FieldSet again = run(false);
    again.at(Field::hidden_states).as<Bf16>()[0].bits ^= 1;
    const auto unstable = differences(kWritten, run(false), again);
    CHECK(in_words(unstable) == "1 of 6 elements of hidden_states");
    CaseResult result;
    result.verdict = Verdict::Passed;
    result.headline = "all 5 fields pass";
    for (const Field field : kWritten) {
      FieldResult& one = result.fields.emplace_back();
      one.field = field;
      one.verdict = Verdict::Passed;
    }
    mark_unstable(result, unstable);
    CHECK(result.verdict == Verdict::Unstable);
    CHECK(exit_code(result.verdict) == ExitCode::Suspect);
    CHECK(result.fields.back().verdict == Verdict::Unstable);
    CHECK(result.fields.front().verdict == Verdict::Passed);
    CHECK(result.headline.starts_with("unstable: two runs on the same input"));
  }

  TEST_CASE("a second backward that differs is told as such, beside runs that differ or alone") {
    FieldSet gradients;
    gradients.set(Field::d_gate, Tensor(DType::BFloat16, expected_shape(Field::d_gate, kSizes)));
    FieldSet again = gradients;
    again.at(Field::d_gate).as<Bf16>()[5].bits = 1;
    std::vector<FieldDifference> unstable =
        differences({Field::d_gate}, gradients, again, Repeated::Backward);
    const std::string backward =
        "the second backward after the same forward differs from the first in 1 of 6 elements of d_gate";
    CHECK(unstable_in_words(unstable) == backward);
    CaseResult result;
    result.verdict = Verdict::Passed;
    result.fields.emplace_back().field = Field::d_gate;
    mark_unstable(result, unstable);
    CHECK(result.fields[0].verdict == Verdict::Unstable);
    CHECK(result.fields[0].notes[0] ==
          "unstable: 1 of 6 elements have other bits in the second backward after the same forward");
    CHECK(result.headline.starts_with("unstable: " + backward));
    unstable.push_back({Field::hidden_states, 2, 6});
    CHECK(unstable_in_words(unstable) ==
          "two runs on the same input in the same process differ in 2 of 6 elements of hidden_states; " +
              backward);
  }

  TEST_CASE("gradients of tokens are put back into their order, those of weights are sums in another") {
    FieldSet one = run(false);
    FieldSet reversed = run(true);
    const std::vector<Field> gradients = {Field::d_input_hidden_states, Field::d_gate};
    for (FieldSet* fields : {&one, &reversed}) {
      fields->set(Field::d_input_hidden_states, fields->at(Field::hidden_states));
      fields->set(Field::d_gate, Tensor(DType::BFloat16, expected_shape(Field::d_gate, kSizes)));
    }
    reversed.at(Field::d_gate).as<Bf16>()[0].bits = 1;
    auto found = reversed_differences(gradients, one, reversed, kSizes);
    CHECK(found.differing.empty());
    CHECK(found.compared == std::vector<Field>{Field::d_input_hidden_states});
    reversed.at(Field::d_input_hidden_states).as<Bf16>()[0].bits ^= 1;
    found = reversed_differences(gradients, one, reversed, kSizes);
    REQUIRE(found.differing.size() == 1);
    CHECK(found.differing[0].field == Field::d_input_hidden_states);
  }

  TEST_CASE("a byte beside a room is told with its side, its distance and how many there are") {
    const wire::Room room =
        make_room({Field::hidden_states, DType::BFloat16}, expected_shape(Field::hidden_states, kSizes),
                  wire::Role::Result, 4096, 0);
    std::vector<std::byte> image(static_cast<std::size_t>(room.image));
    poison_image(image.data(), room);
    CHECK_FALSE(broken_guard(image.data(), room));
    const auto payload = guards_fingerprint(image.data(), room);
    image[4096] = std::byte{0};  // the field's own
    CHECK_FALSE(broken_guard(image.data(), room));
    CHECK(guards_fingerprint(image.data(), room) == payload);
    image[4095] = std::byte{0};
    CHECK(*broken_guard(image.data(), room) ==
          "expected the memory before hidden_states to be left alone, found byte 1 before it overwritten");
    CHECK(guards_fingerprint(image.data(), room) != payload);
    poison_image(image.data(), room);
    for (std::size_t i = 4096 + 12; i < image.size(); ++i) image[i] = std::byte{0};
    CHECK(broken_guard(image.data(), room)->find("up to the end of the guard band") != std::string::npos);
  }

  TEST_CASE(
      "a pipeline that is run twice is judged once where the runs agree, and both runs where a bit differs") {
    int runs = 0;
    const auto made = [&](bool differs) {
      Candidate candidate;
      candidate.fields = run(false);
      if (++runs % 2 == 0 && differs) candidate.fields.at(Field::second_gemm).as<Bf16>()[3].bits ^= 1;
      return candidate;
    };
    const auto same = run_twice("p#c", [&] { return made(false); });
    REQUIRE(same.size() == 1);
    CHECK(same[0].unstable.empty());
    CHECK(same[0].candidate.remarks ==
          std::vector<std::string>{"ran on the problem twice, each time in poisoned memory: the same bytes"});
    const auto other = run_twice("p#c", [&] { return made(true); });
    REQUIRE(other.size() == 2);
    CHECK(other[0].candidate.name == "p#c, second run");
    CHECK(other[1].candidate.name == "p#c, first run");
    CHECK(other[0].candidate.fields.at(Field::second_gemm).as<Bf16>()[3].bits !=
          other[1].candidate.fields.at(Field::second_gemm).as<Bf16>()[3].bits);
    for (const auto& one : other) {
      REQUIRE(one.unstable.size() == 1);
      CHECK(one.unstable[0].field == Field::second_gemm);
      CHECK(one.unstable[0].differing == 1);
    }
    CHECK(runs == 4);
  }
}

}  // namespace assay::cli
