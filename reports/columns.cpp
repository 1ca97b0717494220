#include "reports/columns.h"

#include <algorithm>

namespace assay {

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  bool in_escape = false;
  for (const char c : text) {
    if (c == '\x1b')
      in_escape = true;
    else if (in_escape)
      in_escape = c != 'm';
    else if ((static_cast<unsigned char>(c) & 0xc0u) != 0x80u)
      ++width;
  }
  return width;
}

std::vector<std::size_t> Columns::widths() const {
  std::vector<std::size_t> all = least;
  all.resize(aligns.size());
  for (const auto& row : rows)
    for (std::size_t c = 0; c < std::min(row.size(), all.size()); ++c)
      all[c] = std::max(all[c], display_width(row[c]));
  return all;
}

std::size_t Columns::width() const {
  std::size_t sum = 0;
  for (const std::size_t width : widths()) sum += width + 2;
  return sum < 2 ? 0 : sum - 2;
}

std::string Columns::text(std::size_t indent) const {
  const auto widths = this->widths();
  std::string out;
  for (const auto& row : rows) {
    std::string line(indent, ' ');
    for (std::size_t c = 0; c < widths.size(); ++c) {
      const std::string cell = c < row.size() ? row[c] : "";
      const std::string padding(widths[c] - display_width(cell), ' ');
      if (c > 0) line += "  ";
      line += aligns[c] == Align::Right ? padding + cell : cell + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  }
  return out;
}

std::string wrapped(std::string_view text, std::string_view first, std::size_t width) {
  const std::size_t indent = display_width(first);
  std::string out(first);
  std::size_t used = indent;
  bool fresh = true;  // nothing but the indent stands on the line
  while (!text.empty()) {
    const std::size_t start = text.find_first_not_of(' ');
    if (start == std::string_view::npos) break;
    const std::size_t end = std::min(text.find(' ', start), text.size());
    const std::string_view word = text.substr(start, end - start);
    if (!fresh && used + 1 + display_width(word) > width) {
      out.append(1, '\n').append(indent, ' ');
      used = indent;
      fresh = true;
    }
    if (!fresh) out += ' ';
    out += word;
    used += display_width(word) + (fresh ? 0 : 1);
    fresh = false;
    text.remove_prefix(end);
  }
  return out + '\n';
}

}  // namespace assay
