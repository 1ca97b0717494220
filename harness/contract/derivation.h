// One element derived completely: its terms, how they were summed, its bound part by part, and what would
// have been accepted. Plain data; reference_cpu fills it, reports renders it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "harness/contract/field.h"
#include "harness/contract/reference.h"
#include "harness/contract/verdict.h"

namespace assay {

/// One product of a sum of products: of a matrix product, or of a row's dot product.
struct ProductTerm {
  std::int64_t k = 0;
  double a = 0.0;            // left operand
  double width = 0.0;        // half width of its interval: 0 isolated
  double b = 0.0;            // right operand
  double right_width = 0.0;  // likewise: 0 of weights and inputs
  double product = 0.0;      // a b as it is added: rounded where the contract rounds it
  // Of a sum over rows: whose row it is; -1 elsewhere.
  std::int64_t token = -1;
  std::int64_t slot = -1;
};

/// Sums after the terms [begin, end).
struct PartialSum {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  double exact = 0.0;            // float64, from term 0
  std::optional<float> running;  // as the declared accumulator holds it
  std::optional<std::int32_t>
      exponent;  // tensor core: the largest exponent of the step, to which all addends were aligned
};

/// A value on the way from operands to the element.
struct DerivationStep {
  std::string what;     // "silu(gate), stored as bf16"
  std::string formula;  // "a / (1 + exp(-a))"
  Interval value;
  std::optional<float> predicted;
};

/// A contribution to the half width of the interval before the last rounding.
struct BoundPart {
  std::string what;  // "accumulation, any order: C(n) sum |a||b|, n = 72, u = 2^-24"
  double value = 0.0;
};

/// One slot of an element that a token's slots are added up to.
struct SlotTerm {
  std::int64_t slot = 0;
  std::int64_t expert = 0;
  std::int64_t row = 0;
  // product: weight times value, rounded where the contract rounds it; the value where there is no weight
  std::optional<Interval> weight;
  Interval value;
  Interval product;
  std::optional<float> predicted;  // product
};

/// One expert in a token's ranking.
struct RankedExpert {
  std::int64_t expert = 0;
  double logit = 0.0;
  double probability = 0.0;        // softmax over all experts, float64
  std::optional<float> predicted;  // the same in the declared arithmetic
  double gap = 0.0;        // logit less the last chosen rank's; for the chosen: less the first one left out
  std::int64_t slot = -1;  // where the candidate lists it, -1 if nowhere
  std::int64_t predicted_slot = -1;  // where the prediction lists it
};

struct Derivation {
  Field field{};
  Mode mode = Mode::Isolated;
  std::vector<std::pair<std::string, std::int64_t>> at;
  std::string problem;
  std::string candidate;
  std::string contract;
  std::string accumulator;
  std::string from;  // upstream fields that had to be recomputed
  std::vector<std::string> remarks;

  std::optional<double> out;  // the candidate's value
  std::uint32_t out_bits = 0;
  DType dtype = DType::BFloat16;  // in which its elements are stored
  Interval value;                 // before the last rounding
  Store store = Store::Bf16;      // how the contract keeps it; what a file stores is bf16 all the same, but
                                  // for float32 weight gradients
  // accepted stored values, both ends included
  double low = 0.0;
  double high = 0.0;
  std::int64_t accepted_count = 0;  // bf16 values in between; 0 where the field is not bf16
  std::vector<double> accepted;     // those, at most kListedValues of them from the low end
  std::optional<PredictedBits> predicted;
  double ratio = 0.0;     // |out - ref| / (delta + ulp(out) / 2)
  std::int64_t ulps = 0;  // bf16 neighbours between out and the rounded reference

  std::string operands;              // what a and b of the terms are, and what k counts
  std::int64_t terms = 0;            // of the product; `largest` holds some of them
  double magnitude = 0.0;            // sum |a||b|
  std::vector<ProductTerm> largest;  // by |a||b|, falling
  std::vector<PartialSum> sums;
  std::vector<DerivationStep> steps;
  std::vector<SlotTerm> slots;
  std::string slots_are;  // "weight times row"
  std::vector<RankedExpert> ranking;
  std::vector<BoundPart> bound;    // a priori
  std::vector<BoundPart> running;  // of a product whose order is declared
  std::string running_words;       // how the running bound is made, or why there is none

  Verdict verdict = Verdict::NotMaterialised;
  std::string sentence;
};

inline constexpr std::size_t kListedValues = 16;

}  // namespace assay
