// Faults that can be compiled into the Hopper kernels, so that the self-check and assay are seen to find
// them. 0 in every real build.
#pragma once

#ifndef ASSAY_PLANTED
#define ASSAY_PLANTED 0
#endif

namespace assay::gpu {

enum class KernelFault {
  None = 0,
  DroppedLastK = 1,           // the last step of K is never multiplied
  StaleStage = 2,             // the third step multiplies the stage of the second again
  TailNotPredicated = 3,      // rows behind the expert's last are stored too
  NeighbourExpert = 4,        // tiles that are not full take the previous expert's weights
  GateUpSwapped = 5,          // SwiGLU takes the up half for the gate
  MissingOrder = 6,           // results leave before all warps have written theirs: neither fence nor barrier
  MissingWait = 7,            // the fourth step multiplies first and waits for its stage then
  ByteOffset32 = 8,           // the first product's rows are found by a byte offset of 32 bits
  UncutRows = 9,              // a weight's gradient sums up to whole steps, over the next expert's rows
  EmptyExpertUnwritten = 10,  // nobody writes the gradients of the weights of an expert without rows
  EarlierWeights = 11,        // the gradient of rows takes the weights of the step of K before
  PreviousOverwritten = 12,   // what a weight's gradient is added to is lost
  RowsNotAwaited = 13,        // the second product reads an expert's rows before the first has stored them
};

inline constexpr KernelFault kPlanted = static_cast<KernelFault>(ASSAY_PLANTED);

}  // namespace assay::gpu
