// JSON texts from files. The parser recurses, so a text nested deep enough would overflow the stack.
#pragma once

#include <string_view>

#include <nlohmann/json.hpp>

namespace assay {

/// Nothing assay reads nests deeper than 10.
inline constexpr int kDeepestJson = 64;

/// Whether objects and lists nest deeper than kDeepestJson. Looks at brackets outside of strings only.
bool json_is_too_deep(std::string_view text);

/// The parsed text; a discarded value where it is no JSON, or nests too deep.
nlohmann::json parse_json(std::string_view text);

}  // namespace assay
