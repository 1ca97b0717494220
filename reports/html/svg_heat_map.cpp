#include <algorithm>
#include <cmath>
#include <iterator>
#include <vector>

#include <fmt/format.h>

#include "harness/contract/error_grid.h"
#include "reports/escape.h"
#include "reports/html/base64.h"
#include "reports/html/palette_png.h"
#include "reports/html/svg.h"
#include "reports/wording.h"

namespace assay::svg {
namespace {

constexpr int kLevels = 26;
constexpr double kLeft = 58;
constexpr double kTop = 18;
constexpr double kBottom = 22;
constexpr double kRight = 14;
constexpr double kLargestCell = 14;
constexpr std::size_t kRinged = 40;  // so few bins are circled: a dot of two pixels is easily missed

/// Colours of levels, between these: they stand out from a light and from a dark page, and no two of them
/// differ in hue alone.
struct Stop {
  int level;
  PaletteColour colour;
};
constexpr Stop kRamp[] = {{0, {242, 163, 58}}, {3, {232, 89, 12}},   {6, {214, 40, 31}},
                          {10, {194, 24, 91}}, {16, {168, 85, 216}}, {kLevels - 1, {150, 110, 240}}};
constexpr PaletteColour kClear = {0, 0, 0, 0};
constexpr PaletteColour kNoNumber = {0, 151, 167};

PaletteColour colour_of(int level) {
  const auto* above = std::ranges::find_if(kRamp, [=](const Stop& s) { return s.level >= level; });
  if (above == std::begin(kRamp)) return above->colour;
  const auto* below = above - 1;
  const double part = static_cast<double>(level - below->level) / (above->level - below->level);
  const auto mix = [=](std::uint8_t a, std::uint8_t b) {
    return static_cast<std::uint8_t>(std::lround(a + part * (b - a)));
  };
  return {mix(below->colour.red, above->colour.red), mix(below->colour.green, above->colour.green),
          mix(below->colour.blue, above->colour.blue)};
}

std::vector<PaletteColour> palette() {
  std::vector<PaletteColour> colours = {kClear};
  for (int level = 0; level < kLevels; ++level) colours.push_back(colour_of(level));
  colours.push_back(kNoNumber);
  return colours;
}

std::uint8_t index_of(char level) {
  return static_cast<std::uint8_t>(level == kNothingOutside ? 0
                                   : level == kNoRatio      ? kLevels + 1
                                                            : level - 'a' + 1);
}

std::string hex(PaletteColour c) { return fmt::format("#{:02x}{:02x}{:02x}", c.red, c.green, c.blue); }

/// Size of a bin in the drawing.
double cell(std::int64_t bins, double room) {
  return std::clamp(std::floor(room / static_cast<double>(std::max<std::int64_t>(bins, 1))), 1.0,
                    kLargestCell);
}

std::string label(double x, double y, std::string_view anchor, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>", x, y, anchor, text);
}

/// What stands at the left: an expert where its rows begin, else numbers of rows.
std::string row_labels(const ErrorMap& map, const std::vector<BinRow>& rows, double high, double width) {
  constexpr double kApart = 15;
  std::string out;
  double last = -kApart;
  std::int64_t expert = -1;
  const double step = map.bands.empty() ? 3 * kApart : kApart;
  const double each = static_cast<double>(rows.size()) * high /
                      static_cast<double>(std::max<std::size_t>(1, map.bands.size()));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double y = kTop + static_cast<double>(i) * high;
    const bool begins = rows[i].expert != expert;
    expert = rows[i].expert;
    if (!map.bands.empty() && !begins) continue;
    if (begins && i > 0 && each >= 12)
      out += fmt::format("<path class=\"band\" d=\"M{} {:.1f}h{:.1f}\"/>", kLeft, y, width);
    if (y - last < step) continue;
    last = y;
    out += fmt::format("<path class=\"tick\" d=\"M{} {:.1f}h5\"/>", kLeft - 6, y) +
           label(kLeft - 9, y + 9, "end", std::to_string(map.bands.empty() ? rows[i].first_row : expert));
  }
  return out;
}

std::string column_labels(const ErrorMap& map, double wide, double y) {
  constexpr double kApart = 52;
  std::int64_t step = 1;
  while (static_cast<double>(step) * wide < kApart) step *= 2;
  std::string out;
  for (std::int64_t bin = 0; bin < map.column_bins(); bin += step) {
    const double x = kLeft + static_cast<double>(bin) * wide;
    out += fmt::format("<path class=\"tick\" d=\"M{:.1f} {:.1f}v5\"/>", x, y + 1) +
           label(x, y + 17, "start", std::to_string(map.first_column + bin * map.bin_columns));
  }
  return out;
}

std::string rings(const ErrorMap& map, double wide, double high) {
  std::string out;
  std::size_t count = 0;
  for (std::size_t r = 0; r < map.levels.size(); ++r)
    for (std::size_t c = 0; c < map.levels[r].size(); ++c) {
      if (map.levels[r][c] == kNothingOutside) continue;
      if (++count > kRinged) return "";
      out += fmt::format("<circle class=\"ring\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\"/>",
                         kLeft + (static_cast<double>(c) + 0.5) * wide,
                         kTop + (static_cast<double>(r) + 0.5) * high, std::max(wide, high) / 2 + 4.5);
    }
  return out;
}

char largest_level(const ErrorMap& map) {
  char largest = 'c';
  for (const std::string& row : map.levels)
    for (const char level : row)
      if (level >= 'a') largest = std::max(largest, level);
  return largest;
}

}  // namespace

std::int64_t bins_outside(const ErrorMap& map) {
  std::int64_t count = 0;
  for (const std::string& row : map.levels)
    count += std::ssize(row) - std::ranges::count(row, kNothingOutside);
  return count;
}

std::vector<std::string> level_colours() {
  std::vector<std::string> colours;
  for (int level = 0; level < kLevels; ++level) colours.push_back(hex(colour_of(level)));
  colours.push_back(hex(kNoNumber));
  return colours;
}

std::string heat_map(const ErrorMap& map, Field field, double room, const std::string& title, Bins bins) {
  if (!sound(map)) return "";
  const auto rows = bin_rows(map);
  const auto columns = static_cast<std::size_t>(map.column_bins());
  const double wide = cell(map.column_bins(), room);
  const double high = cell(std::ssize(rows), room);
  const double width = wide * static_cast<double>(columns);
  const double height = high * static_cast<double>(rows.size());
  const std::size_t rank = rank_of(field);
  const std::string row_axis =
      map.bands.empty() ? std::string(axis_name(field, rank < 2 ? 0 : rank - 2)) : "expert";
  std::string out = fmt::format(
      "<svg class=\"heat\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "data-cells=\"{2} {3} {4:.0f} {5:.0f}\" role=\"img\"><title>{6}</title>",
      kLeft + std::max(width, 90.0) + kRight, kTop + height + kBottom, kLeft, kTop, wide, high,
      escaped(title));
  out += fmt::format("<rect class=\"ground\" x=\"{}\" y=\"{}\" width=\"{:.0f}\" height=\"{:.0f}\"/>", kLeft,
                     kTop, width, height);
  const std::string picture = bins == Bins::ByScript
                                  ? ""
                                  : fmt::format(" href=\"data:image/png;base64,{}\"",
                                                base64(palette_png(map.levels, palette(), index_of)));
  out += fmt::format(
      "<image{} x=\"{}\" y=\"{}\" width=\"{:.0f}\" height=\"{:.0f}\" preserveAspectRatio=\"none\"/>", picture,
      kLeft, kTop, width, height);
  out += label(kLeft - 9, kTop - 6, "end", row_axis);
  if (rank > 1)
    out += label(kLeft, kTop - 6, "start", fmt::format("{} →", axis_name(field, rank - 1))) +
           column_labels(map, wide, kTop + height);
  return out + row_labels(map, rows, high, width) + rings(map, wide, high) + "</svg>";
}

std::string level_key(const ErrorMap& map, bool has_ratio) {
  constexpr double kStep = 22;
  constexpr double kHeight = 10;
  const bool numbers = has_ratio && std::ranges::any_of(map.levels, [](const std::string& row) {
                         return std::ranges::any_of(row, [](char c) { return c >= 'a'; });
                       });
  const bool no_number =
      std::ranges::any_of(map.levels, [](const std::string& row) { return row.find(kNoRatio) != row.npos; });
  std::string out;
  double x = 0;
  const auto swatch = [&](std::string_view kind, const std::string& fill, double wide,
                          const std::string& text) {
    out += fmt::format("<rect class=\"{}\" x=\"{:.0f}\" y=\"0\" width=\"{:.0f}\" height=\"{}\"{}/>", kind, x,
                       wide, kHeight, fill.empty() ? "" : fmt::format(" fill=\"{}\"", fill));
    if (!text.empty()) out += label(x, kHeight + 13, "start", text);
    x += wide;
  };
  swatch("ground", "", kStep, "inside");
  x += 42;
  if (numbers) {
    const char largest = largest_level(map);
    const int apart = largest > 'l' ? 4 : 2;  // numbers must not touch, on a phone either
    for (char level = 'a'; level <= largest; ++level) {
      const int power = level - 'a';
      swatch("level", hex(colour_of(power)), kStep,
             power % apart != 0 ? "" : fmt::format("{}", std::int64_t{1} << power));
    }
  }
  if (numbers) {
    out += label(x + 4, kHeight, "start", "× bound");
    x += 74;
  }
  if (no_number) {
    swatch("level", hex(kNoNumber), kStep, has_ratio ? "NaN, inf" : "wrong");
    x += 40;
  }
  return fmt::format(
      "<svg class=\"key-levels\" viewBox=\"0 0 {0:.0f} 26\" width=\"{0:.0f}\" height=\"26\" "
      "aria-hidden=\"true\">{1}</svg>",
      x, out);
}

}  // namespace assay::svg
