#include "harness/cli/held_gradients.h"

#include "golden/held_tensor.h"

namespace assay::cli {
namespace {

constexpr std::int64_t kLargestStored = std::int64_t{1}
                                        << 20;  // bytes of the experts' weights: stores_weights
constexpr std::int64_t kRows = 32;
constexpr std::int64_t kRowsOfEager = 8;

bool of_weights(Field field) {
  return row(field).rows == RowsAre::Experts || row(field).rows == RowsAre::ExpertMatrix;
}

}  // namespace

bool stores_everything(const Problem& problem) {
  const Sizes sizes = problem.sizes();
  std::int64_t elements = 0;
  for (const Field field : {Field::gate_up_proj, Field::down_proj})
    elements += rows_of(field, sizes) * width_of(field, sizes);
  return elements * static_cast<std::int64_t>(sizeof(Bf16)) <= kLargestStored;
}

void hold_large_gradients(const Problem& problem, Candidate& candidate) {
  if (stores_everything(problem)) return;
  const bool eager = candidate.contract == "hf_eager";
  FieldSet& fields = candidate.fields;
  const auto counts = fields.at(Field::token_counts_by_expert).as<std::int32_t>();
  for (const FieldRow& field : kFields) {
    if (field.group != Group::Backward || !fields.has(field.id) || !(eager || of_weights(field.id))) continue;
    const Tensor& tensor = fields.at(field.id);
    candidate.held.push_back(
        hold(field.id, tensor, rows_to_store(tensor.shape(), counts, eager ? kRowsOfEager : kRows)));
    fields.erase(field.id);
  }
}

}  // namespace assay::cli
