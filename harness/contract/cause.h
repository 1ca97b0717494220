// Why a field is wrong, as one hypothesis.
#pragma once

#include <string>

namespace assay {

/// One hypothesis about what went wrong, fitted to the error.
struct Cause {
  std::string hypothesis;  // short id: "k_block_dropped", "bf16_accumulation"
  std::string sentence;    // "the last 64 of K are missing for expert 17"
  double explained =
      0.0;  // 1 - sum (out - hypothesis)^2 / sum (out - ref)^2 over the elements looked at; at most 1
  bool every_bit = false;  // it gives every bit of the elements looked at
};

}  // namespace assay
