// Counts in sentences: digits in groups of three, the same in every locale.
#pragma once

#include <cstdint>
#include <string>

namespace assay {

/// 1115706 as "1,115,706".
inline std::string grouped_digits(std::int64_t count) {
  std::string digits = std::to_string(count);
  const std::ptrdiff_t first = count < 0 ? 1 : 0;
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > first; at -= 3)
    digits.insert(static_cast<std::size_t>(at), 1, ',');
  return digits;
}

}  // namespace assay
