// The reference beside one candidate: every forward field, isolated (from the candidate's own upstream fields) and chained
// (from the problem's inputs, the candidate's routing replayed), in both arithmetics.
#pragma once

#include <memory>

#include "harness/candidate.h"
#include "harness/problem.h"
#include "harness/reference.h"

namespace assay {

/// What a candidate of this problem offers to the isolated checks: fields of right shape, dtype and index range only.
struct Upstream {
  const FieldSet* fields = nullptr;
  bool has(Field field) const { return fields != nullptr && usable[static_cast<std::size_t>(field)] && fields->has(field); }
  std::array<bool, kFieldCount> usable{};
};

/// `accumulators` are the declared ones, or what is assumed of an undeclared Hopper candidate; `predict` switches the
/// predicted arithmetic off altogether. The problem and the candidate's fields must outlive the result.
std::unique_ptr<Reference> make_reference(const Problem& problem, const Upstream& upstream, const PrecisionContract& contract,
                                          const Accumulators& accumulators, bool predict);

}  // namespace assay
