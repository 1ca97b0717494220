// A part of a problem as a problem of its own: some tokens, some experts, a stretch of the hidden and of the
// intermediate columns; and a candidate's fields cut to it. What explaining one element and shrinking a
// failure are made of.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "harness/contract/field_set.h"
#include "harness/contract/problem.h"

namespace assay {

/// Columns [begin, begin + count).
struct Stretch {
  std::int64_t begin = 0;
  std::int64_t count = 0;
  friend bool operator==(const Stretch&, const Stretch&) = default;
};

struct Part {
  std::vector<std::int64_t> tokens;   // ascending
  std::vector<std::int64_t> experts;  // ascending; renumbered 0, 1, ... in this order
  Stretch hidden;
  Stretch intermediate;
  friend bool operator==(const Part&, const Part&) = default;
};

/// Everything.
Part whole(const Sizes& sizes);

/// The part as a problem: batch 1, weights cut as they are loaded. What was cut has no generator any more.
Problem subproblem(const Problem& problem, const Part& part);

/// The candidate's fields on the part, for columns that are not cut. `selected` [T, K] is the routing that
/// orders its rows. Fields that sum over dropped tokens or experts (gradients of weights and of logits) are
/// left out. Tensors of an unexpected shape or dtype stay as they are. Nothing when columns are cut, when a
/// kept token uses a dropped expert, or when a kept row of gather_indices reads a dropped token.
std::optional<FieldSet> subfields(const FieldSet& fields, const Sizes& sizes,
                                  std::span<const std::int32_t> selected, const Part& part);

/// Rows in expert order that belong to the tokens, ascending: for S-shaped fields. Flat slots t * K + j,
/// stably sorted by expert.
std::vector<std::int64_t> rows_of_tokens(std::span<const std::int32_t> selected, std::int64_t top_k,
                                         std::span<const std::int64_t> tokens);

}  // namespace assay
