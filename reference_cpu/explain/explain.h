// One element of a field derived completely (harness/contract/derivation.h).
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "harness/contract/candidate.h"
#include "harness/contract/derivation.h"
#include "harness/contract/place.h"
#include "harness/contract/problem.h"
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

/// Derives the element on its token alone, by the same stages that judge whole fields, so that interval and
/// predicted bits are those of a verification. `predict` as in ReferenceFactory. Throws UsageError for a
/// place that is none or a field that is not forward.
Derivation explain(const Problem& problem, const Candidate& candidate, const PrecisionContract& contract,
                   const Accumulators& accumulators, bool predict, const Question& question);

/// What the per-stage parts below work on: one token as a layer of its own.
struct TokenLayer {
  const Layer* layer = nullptr;
  Mode mode = Mode::Isolated;
  bool predict = false;
  std::int64_t token = 0;  // in the whole problem, for names
  std::int64_t expert = 0;
  std::int64_t slot = 0;  // of the token
  std::int64_t row = 0;   // among the token's rows in expert order
  std::int64_t col = 0;
  const Values<Bounded>* upstream = nullptr;  // the field it reads, as stored; null: the problem's input
  const Values<Predicted>* predicted_upstream = nullptr;  // null unless predicting
  const Values<Bounded>* weights = nullptr;               // hidden_states only
  const Values<Predicted>* predicted_weights = nullptr;
};

// explain_product.cpp, explain_stages.cpp: fill the terms, sums, steps, slots and bound of `derivation`; its
// value is there already.
void derive_product(const TokenLayer& at, std::size_t terms, Derivation& derivation);
void derive_intermediate(const TokenLayer& at, Derivation& derivation);
void derive_weight(const TokenLayer& at, Derivation& derivation);
void derive_merge(const TokenLayer& at, Derivation& derivation);
/// Also the verdict: a counted field is derived from the routing of the whole problem.
void derive_integer(Reference& whole, const Place& place, std::int64_t top_k, const Candidate& candidate,
                    bool usable, Derivation& derivation);
void derive_ranking(const TokenLayer& at, std::span<const std::int32_t> listed, Derivation& derivation);

/// The sums of a_k b_k after every 16 terms, in float64 and as `accumulator` holds them; written term by term
/// from the description of the accumulator, apart from the vector kernels. Pairwise sums have no running
/// value: there only the last one has.
std::vector<PartialSum> partial_sums(std::span<const double> exact_a, std::span<const float> a,
                                     std::span<const Bf16> b, const Accumulator& accumulator);

}  // namespace assay
