// Gradients of weights summed over the wrong rows, by plain float64 loops of the test's own: what is said of
// them, with the rows.
#include <doctest/doctest.h>

#include <functional>

#include "reference_cpu/causes/row_sums.h"
#include "reference_cpu/causes/wrong_candidates.h"

using namespace assay;

namespace {

/// A row of the left operand, a row of the right one, and how often.
struct Addend {
  std::int64_t left;
  std::int64_t right;
  double times = 1.0;
};
using Addends = std::vector<Addend>;

struct Layer61 {
  Problem problem = random_layer(Data::Gaussian, {24, 48, 5, 2, true}, 61, 7);
  Candidate right = predict_both_passes(problem, find_contract("hf"), every_product(kHopper));
  std::vector<std::int64_t> offsets = {0};
  std::span<const std::int32_t> gather = right.fields.at(Field::gather_indices).as<std::int32_t>();

  Layer61() {
    for (const auto count : right.fields.at(Field::token_counts_by_expert).as<std::int32_t>())
      offsets.push_back(offsets.back() + count);
  }
  std::int64_t rows() const { return std::ssize(gather); }

  /// The expert's rows of d_gate_up_proj: its own gradient rows and its tokens.
  Addend addend(std::int64_t row) const { return {row, gather[static_cast<std::size_t>(row)] / 2}; }

  /// What is said of d_gate_up_proj where every expert sums `change(expert, its own addends)`.
  std::vector<Cause> causes(const std::function<Addends(std::int64_t, Addends)>& change) const {
    Candidate wrong = right;
    const auto left = right.fields.at(Field::d_first_gemm).as<Bf16>();
    const auto input = problem.input.as<Bf16>();
    const auto out = wrong.fields.at(Field::d_gate_up_proj).as<Bf16>();
    for (std::int64_t e = 0; e < 5; ++e) {
      Addends own;
      for (std::int64_t r = offsets[static_cast<std::size_t>(e)];
           r < offsets[static_cast<std::size_t>(e) + 1]; ++r)
        own.push_back(addend(r));
      const Addends summed = change(e, own);
      for (std::int64_t i = 0; i < 96; ++i)
        for (std::int64_t c = 0; c < 24; ++c) {
          double sum = 0.0;
          for (const auto& a : summed)
            sum += a.times * to_float(left[static_cast<std::size_t>(a.left * 96 + i)]) *
                   to_float(input[static_cast<std::size_t>(a.right * 24 + c)]);
          out[static_cast<std::size_t>((e * 96 + i) * 24 + c)] = round_to_bf16(static_cast<float>(sum));
        }
    }
    return causes_of(problem, wrong, Field::d_gate_up_proj);
  }
};

std::string first_id(const std::vector<Cause>& causes) {
  return causes.empty() ? "" : causes.front().hypothesis;
}

}  // namespace

TEST_SUITE("causes_weight_gradients") {
  TEST_CASE("rows that are missing or added twice are found from the elements, wherever they are") {
    const Layer61 layer;
    const auto said = [&](const std::function<Addends(std::int64_t, Addends)>& change) {
      const auto causes = layer.causes(change);
      return first_id(causes) + ": " + first_sentence(causes);
    };
    CHECK(said([](std::int64_t, Addends own) {
            if (!own.empty()) own.pop_back();
            return own;
          }).starts_with("k_dropped: the last row of the sum is missing"));
    CHECK(said([](std::int64_t, Addends own) {
            own.resize(own.size() - std::min<std::size_t>(3, own.size()));
            return own;
          }).starts_with("k_dropped: the last 3 rows of the sum are missing"));
    CHECK(said([](std::int64_t, Addends own) {
            for (std::size_t i = 4; i < std::min<std::size_t>(9, own.size()); ++i) own[i].times = 0.0;
            return own;
          }).starts_with("k_dropped: rows 4 to 8 of the sum are missing"));
    CHECK(said([](std::int64_t, Addends own) {
            if (own.size() > 2) own[2].times = 2.0;
            return own;
          }).starts_with("k_doubled: row 2 of the sum is added twice"));
    // No rule holds of all experts: rows as they were fitted.
    CHECK(said([](std::int64_t e, Addends own) {
            if (e == 1) own[1].times = own[5].times = 0.0;
            if (e == 3) own[0].times = 0.0;
            return own;
          }).starts_with("k_dropped: 3 rows of the sums are missing"));
  }

  TEST_CASE("rows of the experts beside are found") {
    const Layer61 layer;
    const auto moved = [&](std::int64_t begin, std::int64_t end) {
      return layer.causes([&](std::int64_t e, const Addends&) {
        Addends rows;
        for (std::int64_t r = std::max<std::int64_t>(0, layer.offsets[static_cast<std::size_t>(e)] + begin);
             r < std::min(layer.rows(), layer.offsets[static_cast<std::size_t>(e) + 1] + end); ++r)
          rows.push_back(layer.addend(r));
        return rows;
      });
    };
    CHECK(first_sentence(moved(0, 1)).starts_with("the next expert's first row is added"));
    CHECK(first_sentence(moved(0, 2)).starts_with("the next expert's first 2 rows are added"));
    CHECK(first_sentence(moved(1, 1)).starts_with("the sum begins and ends one row late"));
    CHECK(first_sentence(moved(-1, 0)).starts_with("the last row of the expert before is added"));
    CHECK(first_sentence(moved(-1, -1)).starts_with("the sum begins and ends one row early"));
    CHECK(first_id(moved(1, 1)) == "rows_of_neighbour");
  }

  TEST_CASE("the rows that were really multiplied are solved for") {
    const Layer61 layer;
    const auto by_slot = layer.causes([&](std::int64_t, Addends own) {
      for (auto& a : own) a.right = layer.gather[static_cast<std::size_t>(a.left)] % 61;
      return own;
    });
    CHECK(first_id(by_slot) == "wrong_token");
    CHECK(first_sentence(by_slot).starts_with("the token numbered as the slot is read"));
    const auto other = layer.causes([&](std::int64_t, Addends own) {
      for (auto& a : own) a.right = (a.right + 5) % 61;
      return own;
    });
    CHECK(first_sentence(other).starts_with("rows are multiplied with the input of other tokens"));
  }

  TEST_CASE("halves that are exchanged, sums in bf16 and other orders of the rows are told apart") {
    const Layer61 layer;
    Candidate wrong = layer.right;
    const auto right = layer.right.fields.at(Field::d_gate_up_proj).as<Bf16>();
    const auto out = wrong.fields.at(Field::d_gate_up_proj).as<Bf16>();
    for (std::int64_t r = 0; r < 5 * 96; ++r)
      std::ranges::copy(right.subspan(static_cast<std::size_t>((r / 96 * 96 + (r % 96 + 48) % 96) * 24), 24),
                        out.begin() + r * 24);
    CHECK(first_id(causes_of(layer.problem, wrong, Field::d_gate_up_proj)) == "gate_up_swapped");
    const auto left = layer.right.fields.at(Field::d_first_gemm).as<Bf16>();
    const auto input = layer.problem.input.as<Bf16>();
    for (std::int64_t e = 0; e < 5; ++e)
      for (std::int64_t i = 0; i < 96; ++i)
        for (std::int64_t c = 0; c < 24; ++c) {
          Bf16 sum{};
          for (std::int64_t r = layer.offsets[static_cast<std::size_t>(e)];
               r < layer.offsets[static_cast<std::size_t>(e) + 1]; ++r)
            sum =
                round_to_bf16(to_float(sum) +
                              to_float(left[static_cast<std::size_t>(r * 96 + i)]) *
                                  to_float(input[static_cast<std::size_t>(layer.addend(r).right * 24 + c)]));
          out[static_cast<std::size_t>((e * 96 + i) * 24 + c)] = sum;
        }
    CHECK(first_id(causes_of(layer.problem, wrong, Field::d_gate_up_proj)) == "bf16_accumulation");
  }
}
