// A picture of few colours as a PNG file in memory.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace assay {

struct PaletteColour {
  std::uint8_t red = 0;
  std::uint8_t green = 0;
  std::uint8_t blue = 0;
  std::uint8_t alpha = 255;
};

/// Rows of equally many characters, from the top; `index(character)` is that of its colour, below
/// colours.size() <= 256. At least one pixel. Throws InputError where libpng refuses.
std::string palette_png(std::span<const std::string> rows, std::span<const PaletteColour> colours,
                        std::uint8_t (*index)(char));

}  // namespace assay
