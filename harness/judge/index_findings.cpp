#include "harness/judge/index_findings.h"

#include <algorithm>

#include "harness/judge/index_causes.h"
#include "harness/judge/rejected_places.h"
#include "harness/judge/selection_causes.h"
#include "harness/judge/selection_flips.h"

namespace assay {
namespace {

void find_causes_of(const Problem& problem, const Candidate& candidate, const PrecisionContract& contract,
                    const Upstream& upstream, Reference& reference, FieldResult& result) {
  const Field field = result.field;
  if (row(field).dtype != DType::Int32 || !candidate.fields.has(field)) return;
  const Sizes sizes = problem.sizes();
  const Tensor& tensor = candidate.fields.at(field);
  if (tensor.dtype() != DType::Int32 || tensor.shape() != expected_shape(field, sizes) || tensor.size() == 0)
    return;
  const auto found = tensor.as<std::int32_t>();
  RejectedPlaces places({field, sizes, &reference.routing()});
  if (row(field).match == Match::Exact) {
    const auto right = reference.expected_integers(field);
    for (std::size_t i = 0; i < found.size(); ++i)
      if (found[i] != right[i]) places.add(static_cast<std::int64_t>(i));
    // The routing at hand may have the candidate's own order of rows.
    Routing ascending = reference.routing();
    ascending.gather = reference.expected_integers(Field::gather_indices);
    result.causes = causes_of_indices(field, sizes, ascending, found);
  } else {
    const bool own = upstream.has(Field::router_logits);
    const auto unrounded = reference.bounded(Field::router_logits, own ? Mode::Isolated : Mode::Chained,
                                             all_rows(Field::router_logits, sizes));
    const auto logits = own ? exact_logits(StoredSpan(candidate.fields.at(Field::router_logits),
                                                      dtype_of(Field::router_logits, contract)))
                            : model_logits(unrounded, reference.store(Field::router_logits));
    const WrongSelection wrong{problem.config, contract, logits, unrounded, found};
    result.causes = causes_of_selection(wrong);
    const std::int64_t top_k = problem.config.top_k;
    const auto [tokens, ids] = wrong_ids(wrong);
    if (result.isolated.tokens == 0) {  // ids out of range: judged by nobody else
      result.isolated.tokens = sizes.tokens;
      result.isolated.rejected_tokens = std::ssize(tokens);
      result.isolated.rejected = ids;
    }
    for (const auto token : tokens)
      for (std::int64_t slot = 0; slot < top_k; ++slot) places.add(token * top_k + slot);
  }
  result.isolated.where = places.in_words();
}

}  // namespace

void find_index_causes(const Problem& problem, const Candidate& candidate, const PrecisionContract& contract,
                       const Upstream& upstream, Reference& reference, std::span<FieldResult> results) {
  for (auto& result : results)
    if (failed(result.verdict)) find_causes_of(problem, candidate, contract, upstream, reference, result);
}

}  // namespace assay
