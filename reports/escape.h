// Text inside markup: names come from files and command lines, and may hold anything.
#pragma once

#include <string>
#include <string_view>

namespace assay {

/// `text` for element content and quoted attributes of HTML and XML: & < > " ' as entities; control
/// characters that XML 1.0 forbids and bytes that are not UTF-8 as U+FFFD. Line feeds and tabs stay.
std::string escaped(std::string_view text);

}  // namespace assay
