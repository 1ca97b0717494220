#include "harness/contract/error_grid.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <string_view>
#include <utility>

namespace assay {
namespace {

/// A ratio of this level.
double ratio_in(char level) {
  return level == kNoRatio ? std::numeric_limits<double>::infinity() : std::ldexp(1.5, level - 'a');
}

/// Where in its bin the `index`th error of a row of bins is; what is no place is the first.
std::int64_t place_of(std::string_view places, std::size_t index, int digits) {
  const auto width = static_cast<std::size_t>(digits);
  if ((index + 1) * width > places.size()) return 0;
  std::int64_t place = 0;
  for (const char c : places.substr(index * width, width)) {
    const std::size_t digit = kPlaceDigits.find(c);
    if (digit == std::string_view::npos) return 0;
    place = place * 64 + static_cast<std::int64_t>(digit);
  }
  return place;
}

}  // namespace

ErrorMap fitted(ErrorMap shape, std::int64_t most) {
  if (std::ssize(shape.bands) > most) shape.bands.clear();
  while (shape.column_bins() > most) shape.bin_columns *= 2;
  while (std::ssize(bin_rows(shape)) > most) shape.bin_rows *= 2;
  return shape;
}

bool sound(const ErrorMap& map) {
  constexpr std::int64_t kMostBins = 4096;
  constexpr std::int64_t kMostAlong = std::int64_t{1} << 30;  // products of two of them fit
  if (map.bin_rows < 1 || map.bin_columns < 1 || map.rows < 1 || map.columns < 1 || map.first_row < 0 ||
      map.first_column < 0 || map.bin_rows > kMostAlong || map.bin_columns > kMostAlong ||
      map.rows > kMostAlong || map.columns > kMostAlong || map.column_bins() > kMostBins)
    return false;
  const std::int64_t end = map.first_row + map.rows;
  std::int64_t before = map.first_row;
  std::int64_t bins = 0;
  for (std::size_t i = 0; i <= map.bands.size(); ++i) {
    const std::int64_t begin = i < map.bands.size() ? map.bands[i].second : end;
    if (begin < before || begin > end || (i == 0 && !map.bands.empty() && begin != before)) return false;
    bins += (begin - before) / map.bin_rows + ((begin - before) % map.bin_rows != 0);
    before = begin;
  }
  return bins == std::ssize(map.levels) && bins <= kMostBins &&
         std::ranges::all_of(map.levels, [&](const std::string& row) {
           return std::ssize(row) == map.column_bins() && std::ranges::all_of(row, [](char c) {
                    return c == kNothingOutside || c == kNoRatio || (c >= 'a' && c <= 'z');
                  });
         });
}

ErrorGrid::ErrorGrid(ErrorMap shape)
    : shape_(std::move(shape)),
      rows_(bin_rows(shape_)),
      bins_(rows_.size() * static_cast<std::size_t>(shape_.column_bins())) {
  shape_.levels.clear();
  shape_.places.clear();
}

std::size_t ErrorGrid::row_bin(std::int64_t row) const {
  return static_cast<std::size_t>(std::ranges::upper_bound(rows_, row, {}, &BinRow::first_row) -
                                  rows_.begin()) -
         1;
}

void ErrorGrid::add(std::int64_t row, std::int64_t column, double ratio) {
  Worst& bin = bins_[row_bin(row) * static_cast<std::size_t>(shape_.column_bins()) +
                     static_cast<std::size_t>((column - shape_.first_column) / shape_.bin_columns)];
  if (bin.row < 0 || ratio > bin.ratio) bin = {ratio, row, column};
}

void ErrorGrid::add(const ErrorGrid& finer) {
  for (const Worst& bin : finer.bins_)
    if (bin.row >= 0) add(bin.row, bin.column, bin.ratio);
}

ErrorMap ErrorGrid::map() const {
  ErrorMap map = shape_;
  const int digits = place_digits(map);
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    std::string levels;
    std::string places;
    for (std::int64_t c = 0; c < map.column_bins(); ++c) {
      const Worst& bin = bins_[r * static_cast<std::size_t>(map.column_bins()) + static_cast<std::size_t>(c)];
      levels += bin.row < 0 ? kNothingOutside : error_level(bin.ratio);
      if (bin.row < 0) continue;
      const std::int64_t place = (bin.row - rows_[r].first_row) * map.bin_columns + bin.column -
                                 map.first_column - c * map.bin_columns;
      for (int d = digits - 1; d >= 0; --d)
        places += kPlaceDigits[static_cast<std::size_t>((place >> (6 * d)) & 63)];
    }
    map.levels.push_back(std::move(levels));
    if (digits > 0) map.places.push_back(std::move(places));
  }
  return map;
}

ErrorMap coarser(const ErrorMap& map, std::int64_t most) {
  if (!sound(map) || (std::ssize(map.levels) <= most && map.column_bins() <= most)) return map;
  ErrorGrid grid(fitted(map, most));
  const auto rows = bin_rows(map);
  const int digits = place_digits(map);
  for (std::size_t r = 0; r < map.levels.size(); ++r) {
    std::size_t errors = 0;
    for (std::int64_t c = 0; c < map.column_bins(); ++c) {
      const char level = map.levels[r][static_cast<std::size_t>(c)];
      if (level == kNothingOutside) continue;
      const std::int64_t place = r < map.places.size() ? place_of(map.places[r], errors, digits) : 0;
      const std::int64_t column = c * map.bin_columns + place % map.bin_columns;
      grid.add(rows[r].first_row + std::min(place / map.bin_columns, rows[r].rows - 1),
               map.first_column + std::min(column, map.columns - 1), ratio_in(level));
      ++errors;
    }
  }
  return grid.map();
}

}  // namespace assay
