#include "harness/cli/mutate/right_answers.h"

#include "harness/cli/pipelines.h"
#include "harness/contract/field.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

namespace assay::cli {

RightAnswers right_answers(const Problem& problem, const PrecisionContract& contract, bool backward) {
  const PrecisionContract& hf = find_contract("hf");
  const Accumulators accumulators = huggingface_accumulators(problem, hf.name);
  RightAnswers right;
  right.reference = backward ? both_passes(problem, contract) : forward(problem, contract);
  right.torch =
      backward ? predict_both_passes(problem, hf, accumulators) : predict_forward(problem, hf, accumulators);
  Upstream routing{&right.torch.fields, {}};
  routing.usable[static_cast<std::size_t>(Field::selected_experts)] = true;
  const auto exact = make_reference(problem, routing, find_contract("fp64"), {}, false, nullptr);
  for (const Field field : kLeaving) {
    if (!right.torch.fields.has(field)) continue;
    auto& values = right.exact[field];
    for (const RowRange rows : blocks_of(field, problem.sizes()))
      for (const Interval& x : exact->bounded(field, Mode::Chained, rows)) values.push_back(x.ref);
  }
  return right;
}

}  // namespace assay::cli
