// Every planted fault of the backward pass is reached on its problems, changes its own field, and nothing
// that does not descend from it.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>

#include "fixtures/faults.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/problems.h"
#include "harness/contract/layer.h"
#include "reference_cpu/qwen3_moe.h"

using namespace assay;
using namespace assay::cli;

namespace {

bool same(const FieldSet& a, const FieldSet& b, Field field) {
  if (!a.has(field) || !b.has(field)) return a.has(field) == b.has(field);
  return std::ranges::equal(a.at(field).bytes(), b.at(field).bytes());
}

/// The first contract that the fault breaks, and hf where it is legal under every one.
std::string_view wrong_under(const FaultRow& fault) {
  for (const auto contract : kKernelContracts)
    if (std::ranges::find(fault.equivalent, contract) == fault.equivalent.end()) return contract;
  return kKernelContracts.front();
}

}  // namespace

TEST_SUITE("planted gradients") {
  TEST_CASE("a fault of the backward pass changes its field on its problems, and nothing upstream") {
    std::map<std::string, FieldSet, std::less<>> right;
    int reached = 0;
    for (const FaultRow& fault : faults()) {
      if (row(fault.fault.field).group != Group::Backward) continue;
      CAPTURE(fault.id);
      const PrecisionContract& contract = find_contract(wrong_under(fault));
      bool changed = false;
      for (const std::string_view fixture : fault.fixtures) {
        CAPTURE(fixture);
        Problem problem = load_fixture(std::string(fixture));
        spoil(problem, fault.spoil);
        const auto accumulators = huggingface_accumulators(problem, contract.name);
        const std::string key = std::string(fixture) + std::string(contract.name) +
                                (fault.spoil == Spoil::Nothing ? "" : " spoilt");
        if (!right.contains(key)) right[key] = predict_both_passes(problem, contract, accumulators).fields;
        const FieldSet wrong = predict_both_passes(problem, contract, accumulators, fault.fault).fields;
        changed = changed || !same(right[key], wrong, fault.fault.field);
        for (const FieldRow& field : kFields) {
          if (field.id == fault.fault.field || descends_from(field.id, fault.fault.field)) continue;
          CAPTURE(field.name);
          CHECK(same(right[key], wrong, field.id));
        }
      }
      CHECK(changed);
      reached += changed;
    }
    CHECK(reached >= 100);
  }
}
