// The layer was written twice in float64: plainly, and in the judge's kernels with their intervals. Apart
// from the order of their sums, 2^-53 each, they are one function: after rounding to bf16 no bit may differ.
#include <doctest/doctest.h>

#include <algorithm>

#include "harness/cli/problems.h"
#include "harness/contract/precision_contract.h"
#include "reference_cpu/eigen/plain_fields.h"
#include "reference_cpu/qwen3_moe.h"

using namespace assay;
using namespace assay::cli;

namespace {

/// Fields that one of the two lacks, or whose bytes differ.
std::string differing(const FieldSet& a, const FieldSet& b) {
  std::string names;
  for (const auto& what : kFields) {
    if (!a.has(what.id) && !b.has(what.id)) continue;
    if (!a.has(what.id) || !b.has(what.id) ||
        !std::ranges::equal(a.at(what.id).bytes(), b.at(what.id).bytes()))
      names += std::string(what.name) + " ";
  }
  return names;
}

}  // namespace

TEST_SUITE("plain_layer") {
  TEST_CASE("the plain layer and the judge's float64 reference give the same bits in every field") {
    for (const char* fixture :
         {"tiny", "odd", "integers", "integers", "no_renormalisation", "empty_experts", "one_expert",
          "all_experts", "one_token", "no_tokens", "ties", "saturated", "cancellation"}) {
      // Gradients are held against each other in every run, within what float64 loses: where they cancel, the
      // two programs leave other residues.
      Problem problem = load_fixture(fixture);
      problem.output_gradient = {};
      for (const auto contract : kKernelContracts) {
        CAPTURE(fixture);
        CAPTURE(contract);
        const auto plain = plain::run_plain_layer(problem, find_contract(contract)).fields;
        CHECK(differing(plain, forward(problem, find_contract(contract)).fields) == "");
      }
    }
  }

  TEST_CASE("one bit more or less is seen") {
    Problem problem = load_fixture("odd");
    problem.output_gradient = {};
    const auto right = plain::run_plain_layer(problem, find_contract("hf")).fields;
    auto wrong = right;
    wrong.at(Field::intermediate).as<Bf16>().back().bits ^= 1;
    CHECK(differing(right, wrong) == "intermediate ");
    const auto eager = plain::run_plain_layer(problem, find_contract("hf_eager")).fields;
    CHECK(differing(right, eager) == "hidden_states ");
  }
}
