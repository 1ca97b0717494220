#include "harness/host/json_text.h"

#include <set>
#include <vector>

#include <fmt/format.h>

#include "harness/contract/printable.h"

namespace assay {

namespace {

/// A zero byte would end the text for the parser, and hide what stands behind it.
bool unreadable(std::string_view text) {
  return text.find('\0') != std::string_view::npos || json_is_too_deep(text);
}

}  // namespace

bool json_is_too_deep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kDeepestJson) return true;
    } else if (c == ']' || c == '}') {
      depth = depth > 0 ? depth - 1 : 0;
    }
  }
  return false;
}

nlohmann::json parse_json(std::string_view text) {
  if (unreadable(text)) return nlohmann::json(nlohmann::json::value_t::discarded);
  return nlohmann::json::parse(text, nullptr, false);
}

nlohmann::json parse_json(std::string_view text, std::string& twice) {
  using nlohmann::json;
  if (unreadable(text)) return json(json::value_t::discarded);
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto watch = [&](int, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second &&
        twice.empty())
      twice = value.get<std::string>();
    return true;
  };
  return json::parse(text, watch, false);
}

std::string json_text(const nlohmann::ordered_json& document, int indent) {
  const auto plain = document.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  std::string text;
  text.reserve(plain.size());
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(plain[i]); };
  for (std::size_t i = 0; i < plain.size();) {
    // Valid UTF-8. What steers is DEL or has two or three bytes; controls below 0x20 are the layout's own.
    const std::size_t bytes = byte(i) < 0xc0 ? 1 : byte(i) < 0xe0 ? 2 : byte(i) < 0xf0 ? 3 : 4;
    const char32_t value = bytes == 1   ? byte(i)
                           : bytes == 2 ? (byte(i) & 0x1fu) << 6 | (byte(i + 1) & 0x3fu)
                           : bytes == 3
                               ? (byte(i) & 0x0fu) << 12 | (byte(i + 1) & 0x3fu) << 6 | (byte(i + 2) & 0x3fu)
                               : 0x10000;
    if (value >= 0x20 && steers_text(value))
      text += fmt::format("\\u{:04x}", static_cast<unsigned>(value));
    else
      text.append(plain, i, bytes);
    i += bytes;
  }
  return text;
}

}  // namespace assay
