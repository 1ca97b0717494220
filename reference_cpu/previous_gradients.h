// Weight gradients added to those of before (Problem::previous), as the contract says: the product is rounded
// to bf16 or it is not, and one fp32 addition follows.
#pragma once

#include "reference_cpu/stages.h"

namespace assay {

/// Rows [rows.begin, ..) of the field that a product made, all experts' matrices counted through: what was
/// there before is added, before the rounding of the stored value. An expert without rows keeps what it had.
/// Where nothing was there, a product that is kept in float32 is still rounded, if the contract rounds it.
template <class A>
void add_previous(Field field, const Layer& layer, std::int64_t first_row, Values<A>& values);

/// Faults that are planted here.
constexpr bool adds_wrongly(FaultKind kind) {
  return kind >= FaultKind::PreviousOverwritten && kind <= FaultKind::ProductUnrounded;
}

}  // namespace assay
