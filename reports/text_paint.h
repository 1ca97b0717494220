// ANSI colours around words that also say what they mean.
#pragma once

#include <fmt/format.h>
#include <string>
#include <string_view>

#include "reports/wording.h"

namespace assay {

/// `text` in the colour of a verdict, or unchanged.
inline std::string painted(std::string_view text, Mark mark, bool colour) {
  constexpr std::string_view codes[] = {"32", "1;31", "33", "2"};  // green, bold red, yellow, dim
  if (!colour) return std::string(text);
  return fmt::format("\x1b[{}m{}\x1b[0m", codes[static_cast<std::size_t>(mark)], text);
}

}  // namespace assay
