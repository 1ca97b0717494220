// Why a field is wrong, as one hypothesis.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/contract/field.h"

namespace assay {

/// A stretch [begin, end) of a product's K, and how much of its contribution the error says is missing: 1 all
/// of it, -1 added twice, 0 nothing.
struct KBlock {
  std::int64_t begin = 0, end = 0;
  double missing = 0.0;
  double deviation = 0.0;  // standard deviation of the fitted share
};

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
  bool every_bit = false;               // it gives every bit of the elements looked at
  std::optional<Field> unwritten = {};  // the field it lies in, where the candidate did not write that one
  std::vector<KBlock> k_blocks = {};    // of a hypothesis about K: the regression it comes from, all blocks
};

}  // namespace assay
