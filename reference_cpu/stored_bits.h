// Predicted values as the bits of the elements in memory.
#pragma once

#include "reference_cpu/stages.h"

namespace assay {

/// Each value rounded as the contract stores the field.
LargeVector<PredictedBits> stored_bits(Field field, const PrecisionContract& contract,
                                       const Values<Predicted>& values);

/// Whether all of them are determined, and have the same bits.
bool same_determined(const Values<Predicted>& a, const Values<Predicted>& b);

}  // namespace assay
