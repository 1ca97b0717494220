// A page read as a browser reads it, as far as tests need it.
#pragma once

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <cctype>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "reports/html/deflated.h"

namespace assay::page_reader {

inline bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

inline std::size_t count_of(const std::string& text, std::string_view part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size()))
    ++count;
  return count;
}

/// Values of an attribute, in order.
inline std::vector<std::string> attributes(const std::string& html, const std::string& name) {
  std::vector<std::string> values;
  const std::string open = " " + name + "=\"";
  for (std::size_t at = html.find(open); at != std::string::npos; at = html.find(open, at + 1)) {
    const std::size_t start = at + open.size();
    values.push_back(html.substr(start, html.find('"', start) - start));
  }
  return values;
}

/// The first tag that is not closed where it should be, or "" for a page whose tags nest. A cell may be left
/// open: the next or the end of its row closes it.
inline std::string unbalanced(const std::string& html) {
  static const std::set<std::string> kVoid = {"meta", "input", "!doctype"};
  std::vector<std::string> open;
  for (std::size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const bool closing = html[at + 1] == '/';
    std::size_t end = at + 1 + closing;
    std::string tag;
    while (end < html.size() && (std::isalnum(static_cast<unsigned char>(html[end])) || html[end] == '!'))
      tag += html[end++];
    const std::size_t close = html.find('>', at);
    if (close == std::string::npos) return "unfinished <" + tag;
    if (tag == (closing ? "tr" : "td") && !open.empty() && open.back() == "td") open.pop_back();
    if (closing) {
      if (open.empty() || open.back() != tag)
        return fmt::format("</{}> at {} closes <{}>", tag, at, open.empty() ? "" : open.back());
      open.pop_back();
    } else if (!kVoid.contains(tag) && html[close - 1] != '/') {
      open.push_back(tag);
    }
    at = close;
    // Text of scripts and styles is no markup.
    if (!closing && (tag == "script" || tag == "style")) at = html.find("</" + tag, close) - 1;
  }
  return open.empty() ? "" : "never closed: <" + open.back() + ">";
}

/// Base64 of a deflated text, undone as a browser does.
inline std::string unpacked(const std::string& text) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  unsigned bits = 0;
  unsigned count = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<unsigned>(kDigits.find(c));
    if ((count += 6) < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count & 255);
  }
  return inflated(bytes);
}

inline std::string block(const std::string& html, std::string_view id) {
  const std::string open = fmt::format("<script type=\"text/plain\" id=\"{}\">", id);
  const std::size_t start = html.find(open) + open.size();
  return unpacked(html.substr(start, html.find("</script>", start) - start));
}

inline std::string data_of(const std::string& html) { return block(html, "data"); }

/// The page as it is when all its packed sections have been opened.
inline std::string unfolded(std::string html) {
  const auto packed = nlohmann::json::parse(block(html, "details"));
  for (const auto& [id, pieces] : packed["cases"].items()) {
    const std::size_t section = html.find(fmt::format(" id=\"{}\"", id));
    REQUIRE(section != std::string::npos);
    std::string rest;
    for (const std::size_t piece : pieces) rest += packed["pieces"].at(piece).get<std::string>();
    html.insert(html.find("</details>", section), rest);
  }
  return html;
}

}  // namespace assay::page_reader
