// Rows in expert order of which every expert's begin at a multiple of some number: kernels that work on tiles
// of rows pad each expert's to whole ones. The rows between are nobody's, and are not read.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "harness/contract/candidate.h"
#include "harness/contract/config.h"
#include "harness/contract/field_set.h"

namespace assay {

inline constexpr std::int64_t kMostRowAlignment = 65536;

/// The most rows that an alignment can ask for: every expert's last tile as good as empty.
std::int64_t most_padded_rows(const Sizes& sizes, std::int64_t alignment);

/// How many rows each expert has, by selected_experts, or without it by token_counts_by_expert; nothing where
/// neither can be read.
std::optional<std::vector<std::int64_t>> rows_of_experts(const FieldSet& fields, const Sizes& sizes);

/// The rows of experts that have so many, without what stands between them: [S, ...].
Tensor without_padding(const Tensor& padded, const Sizes& sizes, std::span<const std::int64_t> counts,
                       std::int64_t alignment);

/// Why a field in expert order is not read where nothing says how many rows each expert has.
Misstored rows_untold(std::int64_t alignment);
/// How many of `rows` rows in expert order are padding.
std::string padding_remark(const Sizes& sizes, std::int64_t alignment, std::int64_t rows);

/// Leaves the rows between out of every field in expert order and says how many there were. Where the rows of
/// expert e begin follows from the experts before it. A field with fewer rows than that asks for is
/// misstored; more at the end are padding.
void leave_padding_out(Candidate& candidate, const Sizes& sizes, std::int64_t alignment);

}  // namespace assay
