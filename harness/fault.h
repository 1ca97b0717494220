// A planted fault: plain data that the reference's stages accept, so that the judge can be seen to fail.
#pragma once

#include <cstdint>
#include <string>

#include "harness/field.h"

namespace assay {

enum class FaultKind {
  None,
  DropLastK,          // product: the last `amount` elements of K are missing
  DropLastKOfExpert,  // the same for one expert only
  ZeroLastRow,        // product: the last row of an expert is zero
  WrongExpert,        // product: the last `amount` rows of an expert use the next expert's weights
  SwapGateUp,         // swiglu: gate and up halves exchanged
  AccumulateBf16,     // product: running sum rounded to bf16 after every term
  NoRenormalisation,  // weights: not divided by their sum
  TiesHighestIndex,   // top-k: among equals the highest index first
  WeightTwice,        // merge: weight applied twice
  SwapWeights,        // merge: the weights of slots 0 and 1 exchanged
  MergeBf16,          // merge: slots summed in bf16, ascending slot
  TruncateBf16,       // the field's stored values are truncated, not rounded
  FlipBit,            // one bit (`amount`) of one element of the field
};

struct Fault {
  FaultKind kind = FaultKind::None;
  Field field{};            // the field whose computation is faulty
  std::int64_t amount = 0;  // meaning by kind
  std::int64_t expert = 0;  // where the kind needs one

  bool hits(FaultKind which, Field where) const { return kind == which && field == where; }
};

}  // namespace assay
