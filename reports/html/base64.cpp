#include "reports/html/base64.h"

#include <cstdint>

namespace assay {

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t three = 0;
    for (std::size_t b = 0; b < 3; ++b)
      three = three << 8 | (i + b < bytes.size() ? static_cast<std::uint8_t>(bytes[i + b]) : 0u);
    for (std::size_t d = 0; d < 4; ++d)
      text += i + d > bytes.size() ? '=' : kDigits[three >> (18 - 6 * d) & 63];
  }
  return text;
}

}  // namespace assay
