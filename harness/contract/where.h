// Rows and columns of a field in words: what they have in common.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "harness/contract/field.h"
#include "harness/contract/reference.h"

namespace assay {

/// "row 3", "rows 3 to 7", "every 8th row", "every 8th row from 3 on", "rows 1, 2, 9", "12 of 48 rows".
/// `which` is ascending and not empty; `of` is how many there are.
std::string listed(std::string_view one, std::string_view many, std::span<const std::int64_t> which,
                   std::int64_t of);

/// Rows and columns of a field, ascending and not empty, with a preposition: "for expert 17, in columns 64 to
/// 127", "in the last row of each expert", "for the tokens of expert 3". Empty where they are all of them.
std::string place_in_words(Field field, const Sizes& sizes, const Routing& routing,
                           std::span<const std::int64_t> rows, std::span<const std::int64_t> columns);

}  // namespace assay
