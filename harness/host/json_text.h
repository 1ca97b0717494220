// JSON texts from files. The parser recurses, so a text nested deep enough would overflow the stack.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace assay {

/// Nothing assay reads nests deeper than 10.
inline constexpr int kDeepestJson = 64;

/// Whether objects and lists nest deeper than kDeepestJson. Looks at brackets outside of strings only.
bool json_is_too_deep(std::string_view text);

/// The parsed text; a discarded value where it is no JSON, or nests too deep.
nlohmann::json parse_json(std::string_view text);

/// The same; `twice` is the first name that an object holds twice, of which a parser keeps either.
nlohmann::json parse_json(std::string_view text, std::string& twice);

/// The document as text that may go to a terminal: what would steer one (C1 controls, DEL, marks that turn
/// the direction of writing) is written as \uNNNN, which a reader takes for the same text. Bytes that are not
/// UTF-8 become replacement characters. `indent` as dump() takes it.
std::string json_text(const nlohmann::ordered_json& document, int indent = -1);

}  // namespace assay
