// Rows of other tokens, blocks of other blocks, and other functions in SwiGLU's place.
#include <cmath>
#include <functional>
#include <random>

#include "reference_cpu/causes/wrong_candidates.h"

using namespace assay;

namespace {

Problem layer() { return random_layer(Data::Gaussian, {64, 32, 8, 4, true}, 12, 5); }

/// What is said of a first_gemm whose row r has the input of token `of(r, slot)`.
std::vector<Cause> causes_of_tokens(const std::function<std::int64_t(std::int64_t, std::int64_t)>& of) {
  const Problem problem = layer();
  const Candidate right = predicted(problem);
  Candidate wrong = right;
  const auto gather = right.fields.at(Field::gather_indices).as<std::int32_t>();
  const auto rows = wrong.fields.at(Field::first_gemm).as<Bf16>();
  for (std::int64_t r = 0; r < 48; ++r) {
    // The row's own token given the other one's input.
    Problem other = layer();
    const auto slot = gather[static_cast<std::size_t>(r)];
    const auto input = other.input.as<Bf16>();
    std::ranges::copy(problem.input.as<Bf16>().subspan(static_cast<std::size_t>(of(r, slot)) * 64, 64),
                      input.subspan(static_cast<std::size_t>(slot / 4) * 64, 64).begin());
    Candidate again = right;
    predict_again(other, again, Field::first_gemm);
    const auto from =
        again.fields.at(Field::first_gemm).as<Bf16>().subspan(static_cast<std::size_t>(r) * 64, 64);
    std::ranges::copy(from, rows.subspan(static_cast<std::size_t>(r) * 64, 64).begin());
  }
  return causes_of(problem, wrong, Field::first_gemm);
}

std::string said_of_tokens(const std::function<std::int64_t(std::int64_t, std::int64_t)>& of) {
  const auto causes = causes_of_tokens(of);
  REQUIRE(!causes.empty());
  CHECK(causes.front().every_bit);
  CHECK(causes.front().hypothesis == "wrong_token");
  return causes.front().sentence;
}

/// What is said of `of(gate, up)` in SwiGLU's place, beside first_gemms `times` as large.
std::vector<Cause> causes_of_swiglu(float times, const std::function<double(double, double)>& of) {
  const Problem problem = layer();
  Candidate right = predicted(problem);
  for (Bf16& x : right.fields.at(Field::first_gemm).as<Bf16>()) x = round_to_bf16(times * to_float(x));
  predict_again(problem, right, Field::intermediate);
  const auto first = right.fields.at(Field::first_gemm).as<Bf16>();
  return causes_with(problem, right, Field::intermediate, [&](std::int64_t r, std::int64_t c, const auto&) {
    const auto at = static_cast<std::size_t>(r * 64 + c);
    return round_to_bf16(static_cast<float>(of(to_float(first[at]), to_float(first[at + 32]))));
  });
}

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

/// What is said of a field of which `rows` x `columns` from (r, c) on hold what is due from (r2, c2) on.
std::vector<Cause> causes_of_tile(Field field, std::int64_t r, std::int64_t c, std::int64_t r2,
                                  std::int64_t c2, std::int64_t rows, std::int64_t columns) {
  const Problem problem = layer();
  return causes_with(problem, predicted(problem), field,
                     [&](std::int64_t row, std::int64_t column, const MatrixView<Bf16>& values) {
                       const bool inside = row >= r && row < r + rows && column >= c && column < c + columns;
                       return inside ? values.row(row - r + r2)[static_cast<std::size_t>(column - c + c2)]
                                     : values.row(row)[static_cast<std::size_t>(column)];
                     });
}

}  // namespace

TEST_SUITE("causes_operands") {
  TEST_CASE("tokens off by one are named in whichever direction, round the ends or not") {
    CHECK(said_of_tokens([](auto, auto slot) { return (slot / 4 + 1) % 12; }) ==
          "the input is that of the token 1 further on");
    CHECK(said_of_tokens([](auto, auto slot) { return (slot / 4 + 11) % 12; }) ==
          "the input is that of the token 1 before");
    CHECK(said_of_tokens([](auto, auto slot) {
            return std::min<std::int64_t>(slot / 4 + 1, 11);
          }).starts_with("the input is that of the token 1 further on in "));
  }

  TEST_CASE("tokens counted by another rule are named by it") {
    CHECK(said_of_tokens([](auto, auto slot) {
            return slot % 12;
          }).starts_with("the tokens are those of slots counted j T + t"));
    CHECK(said_of_tokens([](auto, auto slot) {
            return std::min<std::int64_t>(slot, 11);
          }).starts_with("the tokens are numbered as their slots, not beyond the last"));
    CHECK(said_of_tokens([](auto r, auto) {
            return r / 4;
          }).starts_with("the tokens are those of slots in slot order, not in expert order"));
    CHECK(said_of_tokens([](auto r, auto) {
            return r % 12;
          }).starts_with("the tokens are those of rows counted modulo T"));
  }

  TEST_CASE("other models' SwiGLU is named by its formula") {
    const auto gpt_oss = [](double gate, double up) {
      gate = std::min(gate, 7.0);
      return (std::clamp(up, -7.0, 7.0) + 1.0) *
             to_float(round_to_bf16(static_cast<float>(gate * sigmoid(1.702 * gate))));
    };
    const auto causes = causes_of_swiglu(8.0f, gpt_oss);
    CHECK(first_sentence(causes) ==
          "the function is (up + 1) gate sigmoid(1.702 gate) with gate at most 7 and up within 7, as GPT-OSS "
          "has it");
    CHECK(causes.front().explained > 0.999);
    CHECK(first_sentence(causes_of_swiglu(1.0f, gpt_oss)) ==
          "the function is (up + 1) gate sigmoid(1.702 gate), as GPT-OSS has it");  // nothing reaches 7
    CHECK(first_sentence(causes_of_swiglu(1.0f, [](double gate, double up) {
            return (up + 1.0) * to_float(round_to_bf16(static_cast<float>(gate * sigmoid(gate))));
          })) == "one is added to the up half");
    const auto limited = causes_of_swiglu(8.0f, [](double gate, double up) {
      gate = std::min(gate, 5.0);
      return std::clamp(up, -5.0, 5.0) * to_float(round_to_bf16(static_cast<float>(gate * sigmoid(gate))));
    });
    CHECK(first_sentence(limited).starts_with("gate is limited to 5 and up to -5 .. 5"));
    CHECK(limited.front().explained > 0.999);
  }

  TEST_CASE("a function that only resembles another is not named") {
    for (const auto& cause : causes_of_swiglu(
             1.0f, [](double gate, double up) { return (up + 1.0) * gate * sigmoid(1.3 * gate); }))
      CHECK(cause.explained < 0.99);
  }

  TEST_CASE("a tile that is another tile is named with both places") {
    const auto said = [](const std::vector<Cause>& causes) {
      REQUIRE(!causes.empty());
      CHECK(causes.front().every_bit);
      return causes.front().sentence;
    };
    CHECK(said(causes_of_tile(Field::second_gemm, 8, 16, 0, 32, 8, 16)) ==
          "columns 16 to 31 of rows 8 to 15 hold those of columns 32 to 47 of rows 0 to 7");
    CHECK(said(causes_of_tile(Field::hidden_states_unpermute, 4, 0, 20, 0, 4, 32)) ==
          "columns 0 to 31 of slots 4 to 7 hold those of columns 0 to 31 of slots 20 to 23");
    CHECK(said(causes_of_tile(Field::hidden_states, 6, 48, 0, 0, 6, 16)) ==
          "columns 48 to 63 of tokens 6 to 11 hold those of columns 0 to 15 of tokens 0 to 5");
  }

  TEST_CASE("a tile of anything else is no moved one") {
    const Problem problem = layer();
    std::mt19937 random(3);
    std::normal_distribution<float> values(0.0f, 1.0f);
    const auto causes = causes_with(problem, predicted(problem), Field::second_gemm,
                                    [&](std::int64_t r, std::int64_t c, const MatrixView<Bf16>& right) {
                                      if (r < 8 || r >= 16 || c < 16 || c >= 32)
                                        return right.row(r)[static_cast<std::size_t>(c)];
                                      return round_to_bf16(values(random));
                                    });
    for (const auto& cause : causes) CHECK(cause.hypothesis != "moved_tile");
  }
}
