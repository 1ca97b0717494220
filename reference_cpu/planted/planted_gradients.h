// Planted faults of the backward steps: the right step on wrong operands, or a wrong formula in its place.
#pragma once

#include <functional>

#include "reference_cpu/stages.h"

namespace assay {

/// Values of any field of the run, as the faulty step sees it.
using FieldReader = std::function<const Values<Predicted>&(Field field)>;

/// Whether the fault replaces the field's whole step. Others are planted where products are summed and values
/// stored (planted.h).
bool replaces_step(const Fault& fault, Field field);

/// All rows of the field as the layer's fault computes them, before storing. `right`: the layer without its
/// fault.
Values<Predicted> planted_gradient(Field field, const Fault& fault, const Layer& right,
                                   const FieldReader& read);

/// planted_dots.cpp: the same of d_topk_weights, whichever way the contract forms it.
Values<Predicted> planted_dots(const Fault& fault, const Layer& right, const FieldReader& read);

/// planted_dots.cpp: every slot a token of its own, which reads the gradient of the token numbered as the
/// slot.
Problem tokens_of_slots(const Problem& problem);

/// Slots j and 1 - j of every token, [T, K].
Values<Predicted> with_slots_swapped(Values<Predicted> weights, std::int64_t top_k);

/// planted_weights.cpp: the same of weight gradients, whose faults are of the rows they are summed over.
Values<Predicted> planted_weight_gradient(ProductId id, const Fault& fault, const Layer& right,
                                          const FieldReader& read);

}  // namespace assay
