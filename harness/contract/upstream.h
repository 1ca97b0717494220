// What of a candidate may feed the isolated checks: fields of right shape, dtype and index range.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "harness/contract/reference.h"

namespace assay {

/// Why later stages cannot read a field.
struct Unusable {
  Verdict verdict;
  std::string sentence;
  std::int64_t rejected = 0;  // entries out of range
};

/// What is wrong with the shape, the dtype or the range of indices of `tensor`; nothing where it can be read.
/// `dtype`: the one that the contract asks for; float32 elements that are bf16 values are as good as those.
/// Without it, a field that some contract keeps in float32 may be that as well.
std::optional<Unusable> unusable(Field field, const Tensor& tensor, const Sizes& sizes,
                                 std::optional<DType> dtype = {});

/// Whether a field is computed, and from nothing that the problem lacks: gradients are made of the output's.
bool computable(Field field, const Problem& problem);

/// The computable fields that can be read. `fields` must outlive the result.
Upstream usable_upstream(const Problem& problem, const FieldSet& fields);

}  // namespace assay
