// What a walk of the graph may take from another one.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <map>
#include <vector>

#include "reference_cpu/tiny_backward.h"

using namespace assay;

namespace {

using Kept = std::map<Field, Values<Predicted>>;

bool rounded(Field field) { return find_step(field) != nullptr && row(field).dtype != DType::Int32; }

bool same_bits(const Values<Predicted>& a, const Values<Predicted>& b) {
  return std::ranges::equal(a, b, [](const PredictedValue& x, const PredictedValue& y) {
    return x.undetermined == y.undetermined &&
           std::bit_cast<std::uint32_t>(x.value) == std::bit_cast<std::uint32_t>(y.value);
  });
}

/// One of a few kinds that change any stage's values, and one of products.
std::vector<Fault> faults_in(Field field) {
  std::vector<Fault> all = {{.kind = FaultKind::TruncateBf16, .field = field},
                            {.kind = FaultKind::ScaleValues, .field = field, .scale = 0.5},
                            {.kind = FaultKind::NextRow, .field = field},
                            {.kind = FaultKind::ReadsUnrounded, .field = field}};
  if (product_of(field)) all.push_back({.kind = FaultKind::DropLastK, .field = field, .amount = 1});
  return all;
}

}  // namespace

TEST_SUITE("evaluator") {
  TEST_CASE(
      "what a fault does not reach is the same without it: kept from there, every value has the same bits") {
    for (const auto contract : kKernelContracts) {
      const TinyBackward tiny(plain::eighths({5, 3, 4, 2, true}, 6, 3), contract);
      Kept sound;
      Evaluator<Predicted> right(tiny.layer, {}, everything());
      for (const Field field : kEvaluationOrder)
        if (rounded(field)) sound[field] = right.evaluate(field);
      int seen = 0;
      for (const auto& [struck, unused] : sound)
        for (const Fault& fault : faults_in(struck)) {
          Layer faulty = tiny.layer;
          faulty.fault = fault;
          for (const auto& [end, without] : sound) {
            Evaluator<Predicted> anew(faulty, {}, everything());
            Evaluator<Predicted> kept(faulty, {}, everything());
            kept.keep_unreached(struck, sound);
            const auto expected = anew.evaluate(end);
            CAPTURE(contract);
            CAPTURE(name(struck));
            CAPTURE(static_cast<int>(fault.kind));
            CAPTURE(name(end));
            CHECK(same_bits(kept.evaluate(end), expected));
            seen += !same_bits(expected, without);
          }
        }
      CHECK(seen > 50);  // faults that reach the field
    }
  }

  TEST_CASE("a field taken for evaluated is the one that is kept, and gives back what evaluating it would") {
    for (const auto contract : kKernelContracts) {
      const TinyBackward tiny(plain::eighths({5, 3, 4, 2, true}, 6, 3), contract);
      Evaluator<Predicted> evaluated(tiny.layer, {}, everything());
      Evaluator<Predicted> taken(tiny.layer, {}, everything());
      for (const Field field : kEvaluationOrder) {
        if (!rounded(field)) continue;
        const auto values = evaluated.evaluate(field);
        evaluated.keep(field, values);
        taken.keep(field, values);
        CAPTURE(contract);
        CAPTURE(name(field));
        REQUIRE(same_bits(taken.passed_over(field), evaluated.value(field)));
        for (const FieldRow& other : kFields) CHECK(taken.holds(other.id) == evaluated.holds(other.id));
      }
    }
  }
}
