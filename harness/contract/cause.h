// Why a field is wrong, as one hypothesis.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "harness/contract/field.h"

namespace assay {

/// A stretch [begin, end) of a product's K, and how much of its contribution the error says is missing: 1 all
/// of it, -1 added twice, 0 nothing.
struct KBlock {
  std::int64_t begin = 0;
  std::int64_t end = 0;
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
  double explained = 0.0;  // 1 - sum (out - hypothesis)^2 / sum (out - ref)^2 over the elements looked at; at
                           // most 1. Of integers: 1 - entries it leaves wrong / entries that are wrong
  bool every_bit = false;  // it gives every bit of the elements looked at
  std::optional<Field> unwritten = {};  // the field it lies in, where the candidate did not write that one
  std::vector<KBlock> k_blocks = {};    // of a hypothesis about K: the regression it comes from, all blocks
};

/// A hypothesis that explains less than this is what the error resembles, not what it is: it stands in the
/// details as "similar to", never in the headline.
inline constexpr double kNamedFrom = 0.9;

inline bool names_the_error(const Cause& cause) { return cause.every_bit || cause.explained >= kNamedFrom; }

/// The best cause that names the error, or null. `causes` are the best first.
const Cause* named_cause(std::span<const Cause> causes);

/// "explains 99.8 % of the error", rounded down, or "explains every bit": 100 % is said of every bit only.
std::string explained_in_words(const Cause& cause);

/// "the last 64 of K are missing for expert 17 (explains 99.8 % of the error)"
std::string in_words(const Cause& cause);

}  // namespace assay
