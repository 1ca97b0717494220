#include "harness/judge/intake.h"

#include "harness/contract/upstream.h"

namespace assay {

Intake::Intake(const Problem& problem, const FieldSet& fields) : sizes_(problem.sizes()), fields_(fields) {
  upstream.fields = &fields;
}

void Intake::check(Field field, FieldResult& result) {
  const Tensor& tensor = fields_.at(field);
  const auto wrong = unusable(field, tensor, sizes_);
  upstream.usable[static_cast<std::size_t>(field)] = !wrong;
  if (!wrong) return;
  result.verdict = wrong->verdict;
  result.notes.push_back(wrong->sentence);
  if (wrong->verdict != Verdict::Failed) return;
  result.isolated.verdict = Verdict::Failed;
  result.isolated.elements = tensor.size();
  result.isolated.rejected = wrong->rejected;
}

}  // namespace assay
