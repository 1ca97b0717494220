// From axis names to one element: "token=17,expert=5,col=3" and the other ways to say where.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "harness/contract/field.h"
#include "harness/contract/reference.h"

namespace assay {

/// Reads "row=14, col=59" into names and indices. Throws UsageError for what is not NAME=INDEX.
std::map<std::string, std::int64_t> parse_place(std::string_view text);

/// Where an element lies; -1 where the field has no such axis.
struct Place {
  std::int64_t index = 0;  // in the flat tensor
  std::int64_t row = -1;   // of the whole field in expert or slot order, of the expert's matrix in others
  std::int64_t token = -1;
  std::int64_t slot = -1;
  std::int64_t expert = -1;
  std::int64_t col = -1;
};

/// The one element of `field` that has all the named indices: row, token, slot and expert in any sufficient
/// combination, col where the field has columns. Throws UsageError that says what is missing, out of range,
/// contradictory or ambiguous.
Place find_place(Field field, const Sizes& sizes, const Routing& routing,
                 const std::map<std::string, std::int64_t>& named);

}  // namespace assay
