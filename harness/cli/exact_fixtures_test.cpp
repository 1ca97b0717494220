// Exact problems through whole layers: every accumulator and every order of summation gives the bits of the
// float64 reference, and whatever is wrong with an index or a term shows in many of them.
#include <doctest/doctest.h>

#include "harness/cli/problems.h"
#include "harness/contract/precision_contract.h"
#include "harness/judge/judge.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

using namespace assay;
using namespace assay::cli;

namespace {

constexpr const char* kExact[] = {"exact", "exact_wide"};
constexpr Field kForward[] = {
    Field::router_logits,          Field::selected_experts, Field::topk_weights,
    Field::token_counts_by_expert, Field::gather_indices,   Field::first_gemm,
    Field::intermediate,           Field::second_gemm,      Field::hidden_states_unpermute,
    Field::hidden_states};

/// The chosen experts tie, so that the float64 layer and torch's order may differ: both take the lowest index
/// here.
PrecisionContract lowest_index(std::string_view name) {
  PrecisionContract contract = find_contract(name);
  contract.ties = TieRule::LowestIndex;
  return contract;
}

/// Elements of the field whose bits differ.
std::int64_t differing(const FieldSet& a, const FieldSet& b, Field field) {
  const auto count = [](auto x, auto y) {
    std::int64_t differences = 0;
    REQUIRE(x.size() == y.size());
    for (std::size_t i = 0; i < x.size(); ++i) differences += x[i] != y[i];
    return differences;
  };
  if (row(field).dtype == DType::Int32)
    return count(a.at(field).as<std::int32_t>(), b.at(field).as<std::int32_t>());
  return count(a.at(field).as<Bf16>(), b.at(field).as<Bf16>());
}

Accumulators all(const Accumulator& accumulator) { return every_product(accumulator); }

}  // namespace

TEST_SUITE("exact") {
  TEST_CASE("every accumulator gives the bits of the float64 layer in every field") {
    for (const char* name : kExact) {
      const Problem problem = load_fixture(name);
      for (const char* contract_name : {"hf", "hf_eager"}) {
        if (std::string_view(name) == "exact_wide" && std::string_view(contract_name) != "hf")
          continue;  // the merge alone differs
        const auto contract = lowest_index(contract_name);
        const FieldSet right = forward(problem, contract).fields;
        for (const char* accumulator : {"fp32_sequential", "fp32_pairwise", "hopper", "hopper_split(16, 8)",
                                        "hopper_split(512, 176, 1360)"}) {
          std::vector<Undetermined> open;
          const auto found =
              predict_forward(problem, contract, all(parse_accumulator(accumulator)), {}, open);
          CAPTURE(name);
          CAPTURE(contract_name);
          CAPTURE(accumulator);
          CHECK(open.empty());
          for (const Field field : kForward) {
            CAPTURE(assay::name(field));
            CHECK(differing(found.fields, right, field) == 0);
          }
        }
      }
    }
  }

  TEST_CASE(
      "the reference proves every element exact: one accepted value, isolated and chained, whatever the "
      "accumulator") {
    for (const char* name : kExact) {
      const Problem problem = load_fixture(name);
      const auto contract = lowest_index("hf");
      const FieldSet fields = forward(problem, contract).fields;
      Upstream upstream;
      upstream.fields = &fields;
      upstream.usable.fill(true);
      const auto reference = make_reference(problem, upstream, contract, {}, false);
      for (const Field field : kForward) {
        if (row(field).match != Match::Rounded) continue;
        for (const Mode mode : {Mode::Isolated, Mode::Chained}) {
          std::int64_t wide = 0;
          std::int64_t elements = 0;
          for (const auto& x : reference->bounded(field, mode, all_rows(field, problem.sizes()))) {
            ++elements;
            wide += round_to_bf16(x.low) != round_to_bf16(x.high);
          }
          CAPTURE(name);
          CAPTURE(assay::name(field));
          CAPTURE(static_cast<int>(mode));
          CHECK(elements == fields.at(field).size());
          CHECK(wide == 0);
        }
      }
    }
  }

  TEST_CASE("the weights are 1 / K, and no two tokens, rows or columns of the output are alike") {
    for (const char* name : kExact) {
      const Problem problem = load_fixture(name);
      const FieldSet fields = forward(problem, lowest_index("hf")).fields;
      for (const Bf16 weight : fields.at(Field::topk_weights).as<Bf16>())
        CHECK(to_float(weight) * static_cast<float>(problem.config.top_k) == 1.0f);
      const auto out = fields.at(Field::hidden_states).as<Bf16>();
      const std::int64_t width = problem.config.hidden_size;
      std::int64_t same_token = 0;
      std::int64_t same_column = 0;
      for (std::int64_t i = 0; i < static_cast<std::int64_t>(out.size()); ++i) {
        same_token += out[static_cast<std::size_t>(i)] ==
                      out[static_cast<std::size_t>((i + width) % static_cast<std::int64_t>(out.size()))];
        same_column += out[static_cast<std::size_t>(i)] ==
                       out[static_cast<std::size_t>(i - i % width + (i + 1) % width)];
      }
      CAPTURE(name);
      CHECK(same_token * 20 < static_cast<std::int64_t>(out.size()));
      CHECK(same_column * 20 < static_cast<std::int64_t>(out.size()));
    }
  }

  TEST_CASE("one term less, a wrong expert or exchanged halves change many bits") {
    struct Planted {
      Fault fault;
      Field shows_in;
      int one_in;  // at least one element of so many differs
    };
    const Planted planted[] = {
        {{FaultKind::DropLastK, Field::router_logits, 1, 0},
         Field::router_logits,
         8},  // the chosen logits absorb it
        {{FaultKind::DropLastK, Field::first_gemm, 1, 0}, Field::first_gemm, 3},
        {{FaultKind::DropLastK, Field::second_gemm, 1, 0}, Field::second_gemm, 3},
        {{FaultKind::WrongExpert, Field::first_gemm, 1, 0}, Field::first_gemm, 10},
        {{FaultKind::WrongExpert, Field::second_gemm, 1, 0}, Field::second_gemm, 10},
        {{FaultKind::SwapGateUp, Field::intermediate, 0, 0}, Field::intermediate, 2},
    };
    for (const char* name : kExact) {
      const Problem problem = load_fixture(name);
      const auto contract = lowest_index("hf");
      const FieldSet right = predict_forward(problem, contract, all({AccumulatorKind::Hopper, {}})).fields;
      for (const auto& [fault, field, one_in] : planted) {
        const FieldSet wrong =
            predict_forward(problem, contract, all({AccumulatorKind::Hopper, {}}), fault).fields;
        CAPTURE(name);
        CAPTURE(assay::name(field));
        CHECK(differing(wrong, right, field) * one_in >= right.at(field).size());
      }
    }
  }
}
