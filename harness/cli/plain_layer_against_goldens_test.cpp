// Both passes of the plain layer beside what HuggingFace computed: in float64, and in bf16 on an NVIDIA H200.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "harness/cli/problems.h"
#include "harness/contract/subproblem.h"
#include "reference_cpu/eigen/plain_fields.h"

using namespace assay;
using namespace assay::cli;

namespace {

constexpr const char* kGoldens[] = {"golden/data/tiny.grouped_mm.h5", "golden/data/tiny.eager.h5",
                                    "golden/data/odd.grouped_mm.h5", "golden/data/odd.eager.h5"};
constexpr std::int64_t kCompared = 17;  // rounded fields: 6 forward, 11 backward

FieldSet plain_run(const GoldenFile& file, std::string_view contract) {
  const FieldSet& fields = file.candidate.fields;
  return plain::run_both_passes(file.problem, find_contract(contract),
                                fields.at(Field::selected_experts).as<std::int32_t>(),
                                file.problem.output_gradient);
}

/// Renormalised, the gradient of an unchosen logit is 0 by mathematics; in bits it is what rounding leaves:
/// of each term of K four roundings of 2^-24.
bool is_residue(double x, const FieldSet& plain, std::int64_t token) {
  double terms = 0.0;
  const std::int64_t top_k = plain.at(Field::d_topk_weights).shape()[1];
  for (const double d :
       plain.at(Field::d_topk_weights)
           .as<double>()
           .subspan(static_cast<std::size_t>(token * top_k), static_cast<std::size_t>(top_k)))
    terms += std::fabs(d);
  return std::fabs(x) <= 4.0 * static_cast<double>(top_k) * 0x1p-24 * terms;
}

bool chosen(const FieldSet& plain, std::int64_t token, std::int64_t expert) {
  const auto& selected = plain.at(Field::selected_experts);
  const auto top_k = static_cast<std::size_t>(selected.shape()[1]);
  const auto of_token = selected.as<std::int32_t>().subspan(static_cast<std::size_t>(token) * top_k, top_k);
  return std::ranges::find(of_token, expert) != of_token.end();
}

/// Elements of a field whose bits are not the file's.
std::int64_t differing(Field field, const FieldSet& plain, const FieldSet& stored) {
  const auto ours = plain.at(field).as<double>();
  const auto theirs = stored.at(field).as<Bf16>();
  REQUIRE(ours.size() == theirs.size());
  const std::int64_t columns = plain.at(field).shape().back();
  std::int64_t count = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i) / columns;
    const auto column = static_cast<std::int64_t>(i) % columns;
    if (field == Field::d_router_logits && !chosen(plain, row, column))
      count += !(is_residue(ours[i], plain, row) && is_residue(to_float(theirs[i]), plain, row));
    else
      count += round_to_bf16(ours[i]) != theirs[i];
  }
  return count;
}

}  // namespace

TEST_SUITE("plain_layer") {
  TEST_CASE("in float64 both passes are HuggingFace's of the same inputs") {
    for (const char* path : kGoldens) {
      const GoldenFile file = load_file(path);
      const FieldSet plain = plain_run(file, "fp64");
      std::int64_t compared = 0;
      for (const auto& what : kFields) {
        if (what.match != Match::Rounded || !file.candidate.oracle.has(what.id)) continue;
        ++compared;
        const auto ours = plain.at(what.id).as<double>();
        const auto theirs = file.candidate.oracle.at(what.id).as<double>();
        REQUIRE(ours.size() == theirs.size());
        double largest = 0.0;
        double apart = 0.0;
        for (std::size_t i = 0; i < ours.size(); ++i) {
          largest = std::max(largest, std::fabs(theirs[i]));
          apart = std::max(apart, std::fabs(ours[i] - theirs[i]));
        }
        CAPTURE(path);
        CAPTURE(what.name);
        // Chains of five sums of at most 100 terms, 2^-53 each.
        CHECK(apart <= 500 * 0x1p-53 * largest);
      }
      CHECK(compared == kCompared);
    }
  }

  TEST_CASE("rounded where the contract says, every bit of both passes is the H200's") {
    for (const char* path : kGoldens) {
      const GoldenFile file = load_file(path);
      const FieldSet plain = plain_run(file, file.candidate.contract);
      std::int64_t compared = 0;
      for (const auto& what : kFields) {
        if (what.match != Match::Rounded || !file.candidate.fields.has(what.id)) continue;
        ++compared;
        CAPTURE(path);
        CAPTURE(what.name);
        CHECK(differing(what.id, plain, file.candidate.fields) == 0);
      }
      CHECK(compared == kCompared);
    }
  }

  TEST_CASE("another contract's roundings, and another layer's derivative, are seen in the bits") {
    GoldenFile file = load_file("golden/data/odd.eager.h5");
    CHECK(differing(Field::d_input_hidden_states, plain_run(file, "hf"), file.candidate.fields) > 0);
    CHECK(differing(Field::d_first_gemm, plain_run(file, "fused_fp32"), file.candidate.fields) > 0);
    file.problem.config.norm_topk_prob = !file.problem.config.norm_topk_prob;
    CHECK(differing(Field::d_router_logits, plain_run(file, "hf_eager"), file.candidate.fields) > 0);
  }

  TEST_CASE("some tokens, and one expert, are computed alone: the rows of the whole layer") {
    const GoldenFile file = load_file("golden/data/odd.grouped_mm.h5");
    const FieldSet& fields = file.candidate.fields;
    const auto selected = fields.at(Field::selected_experts).as<std::int32_t>();
    const auto& contract = find_contract("hf");
    const FieldSet all = plain_run(file, "hf");
    const std::vector<std::int64_t> tokens = {2, 5, 11};
    const auto rows = rows_of_tokens(selected, file.problem.config.top_k, tokens);
    const FieldSet some =
        plain::run_tokens(file.problem, contract, selected, file.problem.output_gradient, tokens);
    const auto row_of = [&](const Tensor& tensor, std::int64_t row) {
      const auto columns = static_cast<std::size_t>(tensor.shape().back());
      return tensor.as<double>().subspan(static_cast<std::size_t>(row) * columns, columns);
    };
    for (const auto& [field, of_whole] :
         {std::pair(Field::d_first_gemm, rows), std::pair(Field::second_gemm, rows),
          std::pair(Field::d_input_hidden_states, tokens)})
      for (std::size_t r = 0; r < of_whole.size(); ++r)
        CHECK(std::ranges::equal(row_of(some.at(field), static_cast<std::int64_t>(r)),
                                 row_of(all.at(field), of_whole[r])));
    CHECK_FALSE(some.has(Field::d_gate));

    const std::int64_t expert = selected.front();
    const FieldSet one =
        plain::run_expert(file.problem, contract, selected, file.problem.output_gradient, expert);
    for (const Field field : {Field::d_gate_up_proj, Field::d_down_proj}) {
      const auto alone = one.at(field).as<double>();
      CHECK(std::ranges::equal(alone, all.at(field).as<double>().subspan(
                                          static_cast<std::size_t>(expert) * alone.size(), alone.size())));
    }
  }
}
