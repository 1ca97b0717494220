// Counts with the word that they count, as sentences have them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "harness/contract/digits.h"

namespace assay {

/// "1 field", "2,048 fields".
inline std::string counted(std::int64_t count, std::string_view one) {
  return grouped_digits(count).append(" ").append(one).append(count == 1 ? "" : "s");
}

}  // namespace assay
