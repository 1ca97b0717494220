// Texts from files, safe to print: what would steer a terminal is written out.
#pragma once

#include <string>
#include <string_view>

namespace assay {

/// The text with control characters, invalid UTF-8, the C1 controls and the marks that turn the direction of
/// writing as \xNN. `lines`: line feeds stay.
std::string printable(std::string_view text, bool lines = false);

/// Whether a character steers a terminal, or turns the direction in which others are read.
bool steers_text(char32_t character);

}  // namespace assay
