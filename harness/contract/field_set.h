// The tensors a pipeline produced. A field it does not materialise is absent: a verdict, not a failure.
#pragma once

#include <algorithm>
#include <array>
#include <optional>

#include "harness/contract/field.h"

namespace assay {

class FieldSet {
 public:
  bool has(Field field) const { return tensors_[index(field)].has_value(); }
  /// Throws InputError when the field is absent.
  const Tensor& at(Field field) const;
  Tensor& at(Field field);
  void set(Field field, Tensor tensor) { tensors_[index(field)] = std::move(tensor); }
  void erase(Field field) { tensors_[index(field)].reset(); }

 private:
  static std::size_t index(Field field) { return static_cast<std::size_t>(field); }
  std::array<std::optional<Tensor>, kFieldCount> tensors_;
};

/// Unsloth's `GroupedGEMMResult`: its eight fields, in its order.
inline constexpr std::array<Field, 8> kGroupedGemmResult = {
    Field::token_counts_by_expert,
    Field::gather_indices,
    Field::topk_weights,
    Field::first_gemm,
    Field::intermediate,
    Field::second_gemm,
    Field::hidden_states_unpermute,
    Field::hidden_states,
};

constexpr bool in_grouped_gemm_result(Field field) {
  return std::ranges::find(kGroupedGemmResult, field) != kGroupedGemmResult.end();
}

}  // namespace assay
