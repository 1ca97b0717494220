// Why a field is wrong, as one hypothesis.
#pragma once

#include <optional>
#include <string>

#include "harness/contract/field.h"

namespace assay {

/// How the sentence of a cause in a field that was not written begins.
inline std::string in_unwritten(Field field) {
  return "in " + std::string(name(field)) + ", which was not written, ";
}

/// One hypothesis about what went wrong, fitted to the error.
struct Cause {
  std::string hypothesis;  // short id: "k_block_dropped", "bf16_accumulation"
  std::string sentence;    // "the last 64 of K are missing for expert 17"
  double explained =
      0.0;  // 1 - sum (out - hypothesis)^2 / sum (out - ref)^2 over the elements looked at; at most 1
  bool every_bit = false;          // it gives every bit of the elements looked at
  std::optional<Field> unwritten;  // the field it lies in, where the candidate did not write that one
};

}  // namespace assay
