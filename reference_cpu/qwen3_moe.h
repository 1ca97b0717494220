// The Qwen3 MoE layer as a whole, under the method names of Unsloth's torch reference.
#pragma once

#include "harness/contract/candidate.h"
#include "harness/contract/fault.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/problem.h"

namespace assay {

struct Engine;

/// run_router: router_logits, selected_experts, topk_weights of the predicted arithmetic, as stored tensors.
FieldSet run_router(const Problem& problem, const PrecisionContract& contract,
                    const Accumulators& accumulators);

/// forward in predicted arithmetic: every forward field as an H200 stores it, computed from the inputs alone.
/// `fault` plants one error; `engine` is offered the products. Fields are absent where the contract does not
/// store them.
Candidate predict_forward(const Problem& problem, const PrecisionContract& contract,
                          const Accumulators& accumulators, const Fault& fault = {},
                          const Engine* engine = nullptr);

/// What a predicted run leaves open.
struct Undetermined {
  Field field;
  std::int64_t elements;
};

/// The same, and per field how many elements are outside what was measured.
Candidate predict_forward(const Problem& problem, const PrecisionContract& contract,
                          const Accumulators& accumulators, const Fault& fault,
                          std::vector<Undetermined>& undetermined);

/// Both passes in predicted arithmetic; weight gradients of all experts are held, 2 bytes an element. Throws
/// InputError where the problem has no d_hidden_states.
Candidate predict_both_passes(const Problem& problem, const PrecisionContract& contract,
                              const Accumulators& accumulators, const Fault& fault = {});
Candidate predict_both_passes(const Problem& problem, const PrecisionContract& contract,
                              const Accumulators& accumulators, const Fault& fault,
                              std::vector<Undetermined>& undetermined);

/// forward in float64 with one rounding where the contract stores a field; `engine` is offered the products.
Candidate forward(const Problem& problem, const PrecisionContract& contract, const Engine* engine = nullptr);

/// Both passes, likewise.
Candidate both_passes(const Problem& problem, const PrecisionContract& contract);

}  // namespace assay
