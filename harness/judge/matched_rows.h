// Which rows of one run belong to which of another: by token, and within a token by expert, whatever order
// each run keeps its rows in.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "harness/contract/field_set.h"

namespace assay {

using RowNumbers = std::vector<std::int64_t>;  // -1 where there is none

class MatchedRows {
 public:
  /// `tokens`[t]: the token of `a` that token t of `b` repeats; -1 for one that `a` has not. The sets must
  /// outlive this; fields of an unexpected shape or dtype are not read for routing.
  MatchedRows(const FieldSet& a, const Sizes& sizes_a, const FieldSet& b, const Sizes& sizes_b,
              RowNumbers tokens);

  /// Per row of the field in `b` the row of `a`. Weights of slots [T, K] have a row per slot. Nothing where
  /// nobody can tell: rows in expert order without indices or experts, sums over other tokens or over tokens
  /// in another order, indices of other slots.
  std::optional<RowNumbers> rows(Field field) const;

  /// The token of `b` that row r of the field belongs to; -1 where rows are experts'.
  std::int64_t token_of(Field field, std::int64_t r) const;

 private:
  Sizes sizes_a_;
  Sizes sizes_b_;
  RowNumbers tokens_;
  bool same_tokens_ = false;  // each of a's tokens once
  bool same_places_ = false;  // and each where it was
  RowNumbers slots_;          // per slot of b that of a
  std::optional<RowNumbers> row_of_slot_a_;
  std::optional<RowNumbers> slot_of_row_b_;
};

/// Every token where it was.
RowNumbers same_tokens(std::int64_t tokens);

/// Elements per row as `MatchedRows::rows` counts rows.
std::int64_t matched_width(Field field, const Sizes& sizes);

/// Elements of matched rows of which any bit differs: `visit(flat in a, flat in b)`, b's ascending. The
/// tensors must have one dtype, and the field's shapes. Returns the elements compared.
std::int64_t visit_differences(const Tensor& a, const Tensor& b, std::span<const std::int64_t> rows,
                               std::int64_t width,
                               const std::function<void(std::int64_t, std::int64_t)>& visit);

}  // namespace assay
