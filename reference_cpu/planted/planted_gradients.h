// Planted faults of the backward steps: the right step on wrong operands, or a wrong formula in its place.
#pragma once

#include <functional>

#include "reference_cpu/stages.h"

namespace assay {

/// Values of any field of the run, as the faulty step sees it.
using FieldReader = std::function<const Values<Predicted>&(Field field)>;

/// The layer without its fault, with a problem and a contract of its own for a fault to change.
class PlantedLayer {
 public:
  PlantedLayer(const PlantedLayer&) = delete;
  PlantedLayer& operator=(const PlantedLayer&) = delete;

 protected:
  PlantedLayer(const Fault& fault, const Layer& right, const FieldReader& read)
      : fault_(fault),
        layer_(right),
        problem_(*right.problem),
        contract_(*right.contract),
        read_(read),
        hidden_(static_cast<std::size_t>(right.config().hidden_size)),
        width_(static_cast<std::size_t>(right.config().moe_intermediate_size)),
        top_k_(static_cast<std::size_t>(right.config().top_k)),
        experts_(static_cast<std::size_t>(right.config().num_experts)) {
    layer_.problem = &problem_;
    layer_.contract = &contract_;
  }

  const Fault& fault_;
  Layer layer_;
  Problem problem_;
  PrecisionContract contract_;
  const FieldReader& read_;
  std::size_t hidden_;
  std::size_t width_;
  std::size_t top_k_;
  std::size_t experts_;
};

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
