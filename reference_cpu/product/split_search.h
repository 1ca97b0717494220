// Which split of K explains a field that plain K order does not.
#pragma once

#include <optional>
#include <utility>

#include "reference_cpu/stages.h"

namespace assay {

/// The splits cuBLAS has been seen to make: K in tiles of 64, dealt evenly over 2 .. 16 parts, the last one
/// shorter.
std::vector<std::vector<std::int64_t>> candidate_splits(std::int64_t k);

/// Rows of a field whose bits the candidate shows, ascending, and those bits: all, or the ones that are
/// stored beside hashes; none where it shows none.
std::pair<std::vector<std::int64_t>, std::span<const Bf16>> known_bits(Field field, const Upstream& upstream,
                                                                       const Sizes& sizes);

/// The one split under which every element of `target` [rows.size(), n] is as predicted or undetermined;
/// nothing if plain order already explains it or no split does. `rows`: which of the field's rows, ascending;
/// `plain` is the prediction of the whole field without a split (before storing), `left` the product's left
/// operand where the problem does not give it. Tries the rows that differ most first, then the whole field.
std::optional<Accumulator> find_split(ProductId product, const Layer& layer, const Values<Predicted>* left,
                                      std::span<const Bf16> target, std::span<const std::int64_t> rows,
                                      const Values<Predicted>& plain);

/// Splits measured of cuBLAS on an H200: for goldens predicted without a GPU.
Accumulator measured_split(ProductId product, const MoeConfig& config, std::int64_t rows,
                           bool per_expert_cublas);

}  // namespace assay
