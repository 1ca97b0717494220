// Rows and columns that stand elsewhere, and values that are something else, are recognised by their bits.
#include <random>

#include "reference_cpu/causes/wrong_candidates.h"

using namespace assay;

namespace {

Problem layer() { return random_layer(Data::Gaussian, {64, 32, 8, 4, true}, 12, 5); }

/// What is said of a field whose columns are `from(column)` of the right one.
template <class From>
std::string columns_said(Field field, From from) {
  const Problem problem = layer();
  const auto causes = causes_with(problem, predicted(problem), field,
                                  [&](std::int64_t r, std::int64_t c, const MatrixView<Bf16>& values) {
                                    return values.row(r)[static_cast<std::size_t>(from(c))];
                                  });
  REQUIRE(!causes.empty());
  CHECK(causes.front().every_bit);
  return causes.front().sentence;
}

/// The same of a fault planted in a field, with the fields named alone or all of them.
std::string planted_said(const Fault& fault, Field seen_in, bool alone) {
  const Problem problem = layer();
  Candidate wrong = predict_forward(problem, find_contract("hf"), every_product(kHopper), fault);
  if (alone) wrong = only(wrong, {seen_in});
  const auto causes = causes_of(problem, wrong, seen_in);
  REQUIRE(!causes.empty());
  CHECK(causes.front().every_bit);
  return causes.front().sentence;
}

}  // namespace

TEST_SUITE("causes_layouts") {
  TEST_CASE("columns in another order are found, whatever the order") {
    CHECK(columns_said(Field::second_gemm, [](std::int64_t c) { return (c + 5) % 64; }) ==
          "the columns are rotated by 5 to the left");
    CHECK(columns_said(Field::second_gemm, [](std::int64_t c) { return 63 - c; }) ==
          "the columns are reversed");
    CHECK(columns_said(Field::second_gemm, [](std::int64_t c) { return (c + 32) % 64; }) ==
          "the halves of the columns are exchanged");
    CHECK(columns_said(Field::intermediate, [](std::int64_t c) {
            return c % 4 + c / 4 % 2 * 16 + c / 8 * 4;
          }) == "the two halves of the columns alternate in blocks of 4");
    CHECK(columns_said(Field::second_gemm, [](std::int64_t c) {
            return c % 2 + c / 2 % 8 * 8 + c / 16 * 2;
          }) == "the 8 parts of the columns take turns in blocks of 2");
    CHECK(columns_said(Field::second_gemm, [](std::int64_t c) { return (c * 37 + 11) % 64; }) ==
          "64 columns are permuted (column 0 holds that of column 11)");
  }

  TEST_CASE("gate and up in alternating blocks are recognised, seen through the output as well") {
    const Fault blocks{.kind = FaultKind::InterleavedGateUp, .field = Field::intermediate, .amount = 4};
    CHECK(planted_said(blocks, Field::intermediate, false) ==
          "gate and up columns are read as alternating blocks of 4");
    CHECK(planted_said(blocks, Field::hidden_states, true) ==
          "in intermediate, which was not written, gate and up columns are read as alternating blocks of 4");
    const Fault halves{.kind = FaultKind::InterleavedGateUp, .field = Field::intermediate, .amount = 16};
    CHECK(planted_said(halves, Field::intermediate, false) ==
          "gate and up columns are read as alternating blocks of 16");
  }

  TEST_CASE("another expert in a slot is recognised in the output alone") {
    CHECK(planted_said({.kind = FaultKind::NextBest, .field = Field::selected_experts}, Field::hidden_states,
                       true) ==
          "in selected_experts, which was not written, the first expert left out stands in the last slot");
  }

  TEST_CASE("probabilities in the place of logits are recognised") {
    const Problem problem = layer();
    const auto causes = causes_with(problem, predicted(problem), Field::router_logits,
                                    [](std::int64_t r, std::int64_t c, const MatrixView<Bf16>& values) {
                                      double sum = 0.0;
                                      for (const Bf16 x : values.row(r)) sum += std::exp(to_float(x));
                                      const double own = to_float(values.row(r)[static_cast<std::size_t>(c)]);
                                      return round_to_bf16(static_cast<float>(std::exp(own) / sum));
                                    });
    CHECK(first_sentence(causes) == "the rows are softmaxes of the logits");
  }

  TEST_CASE("rows that moved and left zeros behind are one cause") {
    const Problem problem = layer();
    const auto causes = causes_with(problem, predicted(problem), Field::second_gemm,
                                    [](std::int64_t r, std::int64_t c, const MatrixView<Bf16>& values) {
                                      const auto at = static_cast<std::size_t>(c);
                                      if (r >= 40) return Bf16{};
                                      return values.row(r < 8 ? r + 40 : r)[at];
                                    });
    CHECK(first_sentence(causes) == "rows 0 to 7 hold those of rows 40 to 47, which are zero");
  }
}
