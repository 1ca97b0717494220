#include "harness/judge/intake.h"

#include "harness/contract/layer.h"
#include "harness/contract/upstream.h"
#include "harness/judge/held_checks.h"

namespace assay {

Intake::Intake(const Problem& problem, const Candidate& candidate, const PrecisionContract& contract)
    : sizes_(problem.sizes()), previous_(problem.previous), candidate_(candidate), contract_(contract) {
  upstream.fields = &candidate.fields;
  upstream.held = &candidate.held;
}

CompareContext Intake::context(Field field, const Routing& routing) const {
  return {field, sizes_, &routing, 0, dtype_of(field, contract_)};
}

void Intake::check(Field field, FieldResult& result) {
  result.dtype = dtype_of(field, contract_);
  if (const auto misstored = candidate_.misstored.find(field); misstored != candidate_.misstored.end()) {
    result.verdict = misstored->second.verdict;
    result.notes.push_back(misstored->second.sentence);
    return;
  }
  if (!candidate_.fields.has(field)) {
    const HeldField* held = candidate_.held_field(field);
    if (held == nullptr) return;
    const auto wrong = unusable(*held, sizes_, dtype_of(field, contract_));
    result.verdict = wrong ? wrong->verdict : Verdict::Unsupported;  // until its hashes are compared
    if (wrong) result.notes.push_back(wrong->sentence);
    return;
  }
  const Tensor& tensor = candidate_.fields.at(field);
  const auto wrong = unusable(field, tensor, sizes_, dtype_of(field, contract_));
  upstream.usable[static_cast<std::size_t>(field)] = !wrong;
  if (!wrong && previous_.has(field))
    result.notes.push_back("judged as the sum of what was there before and this pass's");
  if (!wrong) return;
  result.verdict = wrong->verdict;
  result.notes.push_back(wrong->sentence);
  if (wrong->verdict != Verdict::Failed) return;
  out_of_range_[static_cast<std::size_t>(field)] = true;
  result.isolated.verdict = Verdict::Failed;
  result.isolated.elements = tensor.size();
  result.isolated.rejected = wrong->rejected;
}

}  // namespace assay
