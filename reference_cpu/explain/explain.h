// One element of a field derived completely (harness/contract/derivation.h).
#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "harness/contract/candidate.h"
#include "harness/contract/derivation.h"
#include "harness/contract/place.h"
#include "harness/contract/problem.h"
#include "harness/contract/stored.h"
#include "reference_cpu/stages.h"

namespace assay {

struct Question {
  Field field{};
  std::map<std::string, std::int64_t> at;  // axis names and indices (harness/contract/place.h)
  Mode mode = Mode::Isolated;
  std::size_t terms = 8;  // how many of the product's terms to list
  Accumulators declared;  // by the candidate: where it promises bits (promises_bits), others than predicted
                          // are Suspect
};

/// Derives the element on the tokens that it is made of, by the same stages that judge whole fields, so that
/// interval and predicted bits are those of a verification. `predict` as in ReferenceFactory. Throws
/// UsageError for a place that is none, an input or a weight, and for gradients of a problem without
/// d_hidden_states.
Derivation explain(const Problem& problem, const Candidate& candidate, const PrecisionContract& contract,
                   const Accumulators& accumulators, bool predict, const Question& question);

/// What the per-stage parts below work on: the tokens that the element is made of as a layer of their own,
/// and where the element lies in it. Every forward element is made of one token alone.
struct ElementLayer {
  const Layer* layer = nullptr;
  Mode mode = Mode::Isolated;
  bool predict = false;
  std::vector<std::int64_t> tokens;  // in the whole problem, for names
  std::int64_t token = 0;            // the element's among them
  std::int64_t expert = 0;
  std::int64_t slot = 0;  // of the token
  std::int64_t row = 0;   // in expert order, or of the expert's matrix
  std::int64_t col = 0;
  // The fields that the element's step reads, as stored; null: given by the problem, or not predicting.
  std::array<const Values<Bounded>*, kFieldCount> bounded{};
  std::array<const Values<Predicted>*, kFieldCount> predicted{};

  const Values<Bounded>* bounded_of(Field field) const { return bounded[static_cast<std::size_t>(field)]; }
  const Values<Predicted>* predicted_of(Field field) const {
    return predicted[static_cast<std::size_t>(field)];
  }
  Interval read(Field field, std::int64_t i) const {
    return (*bounded_of(field))[static_cast<std::size_t>(i)];
  }
  /// Only where it is predicting.
  PredictedValue foresee(Field field, std::int64_t i) const {
    return (*predicted_of(field))[static_cast<std::size_t>(i)];
  }
  std::optional<float> foreseen(Field field, std::int64_t i) const {
    return predict ? std::optional(foresee(field, i).value) : std::nullopt;
  }
};

inline std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// A layer of one row and one column, on which a stage forms one element.
struct OneElementLayer {
  Problem problem;
  Layer layer;

  explicit OneElementLayer(const PrecisionContract& contract) {
    problem.config = {1, 1, 1, 1, true};
    problem.sequence = 1;
    layer.problem = &problem;
    layer.contract = &contract;
    layer.routing.gather = {0};
  }
  OneElementLayer(const OneElementLayer&) = delete;
  OneElementLayer& operator=(const OneElementLayer&) = delete;
};

// explain_value.cpp
/// The candidate's element: of its field, where that is `usable`, or of the rows stored of one held by
/// hashes; else the derivation says why there is none.
std::optional<Stored> found_element(const Candidate& candidate, bool usable, const Place& place,
                                    Derivation& derivation);
/// Verdict and distances of what was found; other bits than predicted are Suspect where they are promised.
void judge_found(Stored found, bool promised, Derivation& derivation);

// The parts fill the terms, sums, steps, slots and bound of `derivation`; its value is there already.

// explain_product.cpp
void derive_product(const ElementLayer& at, std::size_t terms, Derivation& derivation);
void derive_weight_gradient(const ElementLayer& at, std::size_t terms, Derivation& derivation);
/// d_input_hidden_states: the router's product, and the experts' part.
void derive_input_gradient(const ElementLayer& at, std::size_t terms, Derivation& derivation);

// explain_added.cpp
/// Of a weight's gradient, behind its sum: the rounding of the product, and the addition to what was there.
void derive_addition(const ElementLayer& at, Derivation& derivation);

// explain_late_weights.cpp
/// The gradient of the activation where the weight comes after the product, which the steps then show.
struct LateWeight {
  Interval value;
  PredictedValue predicted;  // where it is predicting
};
LateWeight late_weight(const ElementLayer& at, std::int64_t col, Derivation& derivation);
/// Of d_intermediate, behind its product.
void weigh_product(const ElementLayer& at, Derivation& derivation);
/// d_topk_weights as the sum of activations times the product.
void derive_activation_dot(const ElementLayer& at, std::size_t terms, Derivation& derivation);

// explain_stages.cpp
void derive_intermediate(const ElementLayer& at, Derivation& derivation);
void derive_weight(const ElementLayer& at, Derivation& derivation);
/// Also the verdict: a counted field is derived from the routing of the whole problem.
void derive_integer(Reference& whole, const Place& place, std::int64_t top_k, const Candidate& candidate,
                    bool usable, Derivation& derivation);
void derive_ranking(const ElementLayer& at, std::span<const std::int32_t> listed, Derivation& derivation);

// explain_slots.cpp
void derive_merge(const ElementLayer& at, Derivation& derivation);
void derive_combined_slots(const ElementLayer& at, Derivation& derivation);

// explain_gradients.cpp, explain_router_grad.cpp
void derive_weighted_row(const ElementLayer& at, Derivation& derivation);
void derive_row_dot(const ElementLayer& at, std::size_t terms, Derivation& derivation);
void derive_swiglu_gradient(const ElementLayer& at, Derivation& derivation);
void derive_logit_gradient(const ElementLayer& at, Derivation& derivation);

/// The operands of a sum of products, one entry per term; no predicted ones: no accumulated sums.
struct SumOperands {
  std::span<const double> a;
  std::span<const double> b;
  std::span<const float> predicted_a;
  std::span<const float> predicted_b;
};

/// The sums of a_k b_k after every 16 terms, in float64 and as `accumulator` holds them; written term by term
/// from the description of the accumulator, apart from the vector kernels. Pairwise sums have no running
/// value: there only the last one has.
std::vector<PartialSum> partial_sums(const SumOperands& operands, const Accumulator& accumulator);

/// The a-priori bound of a sum of n products in any order, C(n) of `magnitude`, the sum of the absolute
/// `terms`.
BoundPart sum_in_any_order(std::string_view terms, std::int64_t n, double u, double magnitude);

/// Keeps the largest of all terms, at most `count`, and how many there are.
void list_terms(std::vector<ProductTerm> all, std::size_t count, Derivation& derivation);

}  // namespace assay
