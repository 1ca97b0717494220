// A field that a file holds by hashes because its elements are too many: the weight gradients of a full-width
// layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/contract/field.h"
#include "harness/contract/tensor.h"

namespace assay {

/// Rows of a tensor seen as [rows, columns]: columns is its last axis, the axes before it are flattened.
struct HeldRows {
  std::int64_t first = 0;
  std::int64_t count = 0;
  friend bool operator==(const HeldRows&, const HeldRows&) = default;
};

struct HeldField {
  Field field;
  DType dtype = DType::BFloat16;
  Shape shape;  // of the whole tensor
  /// SHA-256 of the raw elements: one per expert where the first axis is the expert, else one for all.
  std::vector<std::string> sha256;
  std::vector<HeldRows> stored;  // ascending, apart from each other
  Tensor rows;                   // [sum of the counts, columns], one range after the other
};

/// Whether a field's first axis is the expert: its parts are hashed one by one.
constexpr bool is_hashed_by_expert(Field field) { return row(field).shape[0] == Dim::E; }

}  // namespace assay
