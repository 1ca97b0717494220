// A planted fault: plain data that the reference's stages accept, so that the judge can be seen to fail.
#pragma once

#include <cstdint>
#include <string_view>

#include "harness/contract/field.h"

namespace assay {

enum class FaultKind {
  None,
  // Products: router_logits, first_gemm, second_gemm.
  DropLastK,          // the last `amount` elements of K are missing
  DropLastKOfExpert,  // the same for one expert only
  ZeroLastRow,        // the last row of an expert is zero
  WrongExpert,        // the last `amount` rows of an expert use the next expert's weights
  AccumulateBf16,     // running sum rounded to bf16 after every term
  AccumulateFp16,     // running sum rounded to fp16 after every term
  PartialsBf16,       // sums over blocks of `amount` of K, each rounded to bf16 before they are added
  ScaleKBlock,        // elements first .. first + amount of K times 1 + scale: -1 drops, 1 doubles
  StaleKBlock,        // elements first .. first + amount of K read the left operand of the block before
  ReadBeyondK,        // `amount` elements too many of K: the next row's beginning in both operands
  PreviousExpert,     // the previous expert's weights
  TransposedWeights,  // the weights read as if stored [k, n]
  NarrowOperands,     // the left operand rounded to `amount` significant bits
  // Values of any rounded field, before they are stored.
  ScaleValues,   // times 1 + scale: -1 writes zeros, 1 doubles
  Poison,        // left unwritten: NaN
  NextRow,       // a row holds the next row's values
  ShiftColumns,  // a column holds the value `amount` columns on
  NanToZero,     // NaN becomes 0
  Saturate,      // magnitudes above scale become scale, Inf included; NaN too
  FlushTiny,     // magnitudes below scale become 0
  PositiveZero,  // -0 becomes +0
  AddInput,      // the layer's input is added
  // Storing any rounded field.
  TruncateBf16,     // truncated, not rounded
  RoundHalfAway,    // ties away from zero, not to even
  RoundTwice,       // first to 11 significant bits, then to bf16
  RoundStochastic,  // up or down at random, by the distance
  FlipBit,          // one bit (`amount`) of one element
  ReadsUnrounded,   // the stage that computes the field reads its upstream field before the rounding of the
                    // stored value
  // SwiGLU.
  SwapGateUp,         // gate and up halves exchanged
  InterleavedGateUp,  // gate and up read as alternate columns
  UpIgnored,          // not multiplied by the up half
  UpOfNextRow,        // multiplied by the next row's up half
  Relu,               // max(a, 0) for silu
  Gelu,               // a Phi(a) for silu
  QuickGelu,          // a sigmoid(1.702 a) for silu; `amount` > 0: a at most that, up within it, plus 1
  TanhApprox,         // sigmoid by a tanh of 11 significant bits
  SiluFlushed,        // 0 for a below -scale
  SiluOverflows,      // a e^a / (1 + e^a): Inf / Inf above 88
  SiluUnrounded,      // silu not rounded to bf16 before the product
  SiluScaled,         // silu times 1 + scale
  // Weights and selection.
  NoRenormalisation,   // weights not divided by their sum
  AlwaysRenormalised,  // weights divided by their sum although the model does not
  RenormaliseTwice,    // the rounded weights divided by their sum once more
  SigmoidScores,       // sigmoid for softmax
  RawLogits,           // softmax left out
  SoftmaxOverTokens,   // softmax over the wrong axis
  SoftmaxOfSelected,   // softmax over the selected experts only
  SoftmaxOverflows,    // the largest logit is not subtracted before exp
  TiesHighestIndex,    // top-k: among equals the highest index first
  SelectBf16,          // top-k on probabilities rounded to bf16
  NextBest,            // top-k: the first expert left out stands in the last place
  Ascending,           // top-k: in ascending order
  ExpertPlusOne,       // one token's last expert is off by one
  RepeatExpert,        // one token's last expert is its first one again
  // Counts and indices.
  CountPlusOne,     // one count is one too high
  GatherDuplicate,  // one slot gathered twice, its neighbour never
  GatherReversed,   // slots of an expert in descending order
  GatherShifted,    // every index one further
  // Merge.
  WeightTwice,        // weight applied twice
  NoWeights,          // weight not applied
  SwapWeights,        // the weights of slots 0 and 1 exchanged
  MergeBf16,          // slots summed in bf16, ascending slot
  DropSlot,           // slot `amount` left out
  RepeatSlot,         // slot `amount` added twice
  WeightsModulo,      // token t reads the weights of token t mod `amount`
  WeightedUnrounded,  // the weighted product not rounded before the sum
  SlotsAscending,     // slots summed in ascending order: legal, and other bits than torch's
  // Gradients; many of the kinds above, too.
  SlotForToken,       // rows read the token numbered as their slot
  RowsInExpertOrder,  // rows in expert order read as if in slot order
  DividedByWeight,    // d_topk_weights: sum of intermediate times its gradient, over the weight
  HalfZero,           // of gate (`amount` 0) and up (1): zero, or missing in the sum
  SlopeOfSigmoid,     // silu's slope without the sigmoid's own
  DSiluUnrounded,     // d_intermediate times up not rounded before silu's slope
  RowsOfNeighbour,    // sums over an expert's rows begin and end one row late
  RowsDescending,     // rows summed last one first: legal in any bound, and other bits
  JacobianOfChosen,   // the softmax's gradient reaches the chosen experts only
  SumNotSubtracted,   // gradient times probability, without the mean
  NoSoftmaxGradient,  // the probabilities' gradient for the logits'
  LastSlotWins,       // a token's slots written over one another
  ExpertsReversed,    // slots added in bf16 from the other end of the experts
  CombineFp32,        // slots summed in fp32 and rounded once
  RouterIgnored,      // the router's part not added
  RouterTwice,        // added twice
  RouterUnrounded,    // not rounded before it is added
  ExpertsIgnored,     // the experts' part not added
  // Weight gradients added to those of before (Problem::previous).
  PreviousOverwritten,  // what was there is lost
  ProductDropped,       // what was there stays, and nothing is added
  ProductTwice,         // the product is added twice
  PreviousTwice,        // what was there counts twice
  PreviousOfNeighbour,  // added to what the next expert had
  ProductRounded,       // rounded to bf16 before it is added, or stored
  ProductUnrounded,     // not rounded to bf16 before it is added
};
inline constexpr int kFaultKinds = static_cast<int>(FaultKind::ProductUnrounded) + 1;

/// Kinds that change a field's values as it stores them, whatever the field.
constexpr bool planted_when_stored(FaultKind kind) {
  return kind >= FaultKind::ScaleValues && kind <= FaultKind::ReadsUnrounded;
}

/// Which elements of the field a fault touches. Kinds that say themselves where they strike ignore it.
enum class Where {
  Everywhere,
  Expert,        // rows of `expert`
  OtherExperts,  // rows of all experts but `expert`
  FirstRow,      // of each expert but the first
  LaterRows,     // all but the first of each expert
  LastRow,       // of each expert
  EmptyExperts,  // matrices of experts without rows
  MiddleRow,
  MiddleElement,
  LastColumns,  // the last eighth, rounded up to 8 columns
  OddColumns,
  Share,  // scattered elements, a share of `share` of all
};

struct Fault {
  FaultKind kind = FaultKind::None;
  Field field{};            // the field whose computation is faulty
  std::int64_t amount = 0;  // meaning by kind
  std::int64_t expert = 0;  // where the kind or the region needs one
  double scale = 0.0;       // meaning by kind
  std::int64_t first = 0;   // first element of a K block
  Where where = Where::Everywhere;
  double share = 0.0;

  bool hits(FaultKind which, Field at) const { return kind == which && field == at; }
};

}  // namespace assay
