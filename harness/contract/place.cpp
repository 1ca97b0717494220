#include "harness/contract/place.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include <fmt/format.h>

#include "harness/contract/error.h"

namespace assay {
namespace {

constexpr std::size_t kShownPlaces = 4;

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

std::int64_t index_of(const Place& place, std::string_view axis) {
  if (axis == "row") return place.row;
  if (axis == "token") return place.token;
  if (axis == "slot") return place.slot;
  if (axis == "expert") return place.expert;
  return -1;
}

std::string axes_text(const Place& place) {
  std::string text;
  for (const char* axis : {"row", "token", "slot", "expert"})
    if (index_of(place, axis) >= 0)
      text += fmt::format("{}{}={}", text.empty() ? "" : ",", axis, index_of(place, axis));
  return text;
}

/// Every place of the field but for its columns.
std::vector<Place> places(Field field, const Sizes& sizes, const Routing& routing) {
  const std::int64_t top_k = sizes.config.top_k;
  const auto selected = [&](std::int64_t slot) {
    return std::int64_t{routing.selected[static_cast<std::size_t>(slot)]};
  };
  std::vector<Place> all;
  const std::int64_t rows = rows_of(field, sizes);
  switch (row(field).rows) {
    case RowsAre::ExpertOrder:
    case RowsAre::Slots:
      for (std::int64_t r = 0; r < rows; ++r) {
        const bool slot_order = row(field).rows == RowsAre::Slots;
        const std::int64_t slot = slot_order ? r : routing.gather[static_cast<std::size_t>(r)];
        all.push_back({r, r, slot / top_k, slot % top_k, selected(slot)});
      }
      break;
    case RowsAre::Experts:
      for (std::int64_t e = 0; e < rows; ++e) all.push_back({.index = e, .expert = e});
      break;
    case RowsAre::ExpertMatrix: {
      const std::int64_t matrix = matrix_rows_of(field, sizes);
      for (std::int64_t r = 0; r < rows; ++r)
        all.push_back({.index = r, .row = r % matrix, .expert = r / matrix});
      break;
    }
    case RowsAre::Tokens: {
      const auto last = axis_name(field, rank_of(field) - 1);
      const std::int64_t named = last == "expert" || last == "slot" ? width_of(field, sizes) : 1;
      for (std::int64_t i = 0; i < rows * named; ++i) {
        Place place{.index = i, .token = i / named};
        if (last == "expert") place.expert = i % named;
        if (last == "slot") {
          place.slot = i % named;
          place.expert = selected(i);
        }
        all.push_back(place);
      }
      break;
    }
  }
  return all;
}

std::int64_t columns(Field field, const Sizes& sizes) {
  return axis_name(field, rank_of(field) - 1) == "col" ? width_of(field, sizes) : 0;
}

}  // namespace

std::map<std::string, std::int64_t> parse_place(std::string_view text) {
  std::map<std::string, std::int64_t> named;
  while (!trimmed(text).empty()) {
    const auto comma = std::min(text.find(','), text.size());
    const auto item = trimmed(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
    const auto sign = std::min(item.find_first_of("= "), item.size());
    const auto digits = trimmed(item.substr(std::min(sign + 1, item.size())));
    std::int64_t index = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (sign == 0 || digits.empty() || error != std::errc() || end != digits.data() + digits.size() ||
        index < 0)
      throw UsageError(fmt::format(
          "expected NAME=INDEX with commas between, for instance token=17,expert=5,col=3; found '{}'", item));
    if (!named.emplace(std::string(item.substr(0, sign)), index).second)
      throw UsageError(fmt::format("'{}' is given twice", item.substr(0, sign)));
  }
  return named;
}

Place find_place(Field field, const Sizes& sizes, const Routing& routing,
                 const std::map<std::string, std::int64_t>& named) {
  const auto all = places(field, sizes, routing);
  if (all.empty()) throw UsageError(fmt::format("{} has no elements in this problem", name(field)));
  const std::int64_t width = columns(field, sizes);
  std::string valid;
  for (const char* axis : {"row", "token", "slot", "expert"})
    if (index_of(all.front(), axis) >= 0) valid += fmt::format("{}{}", valid.empty() ? "" : ", ", axis);
  if (width > 0) valid += ", col";
  std::vector<Place> found = all;
  for (const auto& one : named) {
    const std::string& axis = one.first;
    const std::int64_t index = one.second;
    if (axis == "col" && width > 0) {
      if (index >= width)
        throw UsageError(fmt::format("{} has columns 0 to {}, found col={}", name(field), width - 1, index));
      continue;
    }
    if (index_of(all.front(), axis) < 0)
      throw UsageError(fmt::format("{} has no axis '{}'; valid: {}", name(field), axis, valid));
    const auto highest =
        index_of(*std::ranges::max_element(all, {}, [&](const Place& p) { return index_of(p, axis); }), axis);
    if (index > highest)
      throw UsageError(
          fmt::format("{} has {} 0 to {}, found {}={}", name(field), axis, highest, axis, index));
    std::erase_if(found, [&](const Place& place) { return index_of(place, axis) != index; });
  }
  if (found.empty()) {
    std::string near;
    if (const auto token = named.find("token"); token != named.end())
      for (const auto& place : all)
        if (place.token == token->second)
          near += fmt::format("{}{}", near.empty() ? "; this token has " : "; ", axes_text(place));
    throw UsageError(fmt::format("no element of {} lies there{}", name(field), near));
  }
  if (found.size() > 1) {
    std::string shown;
    for (std::size_t i = 0; i < std::min(found.size(), kShownPlaces); ++i)
      shown += fmt::format("{}{}", i == 0 ? "" : "; ", axes_text(found[i]));
    throw UsageError(fmt::format("{} places of {} fit: {}{}; say more of {}", found.size(), name(field),
                                 shown, found.size() > kShownPlaces ? "; ..." : "", valid));
  }
  Place place = found.front();
  if (width == 0) return place;
  const auto col = named.find("col");
  if (col == named.end())
    throw UsageError(fmt::format("{} needs a column as well: col=0 to col={}", name(field), width - 1));
  place.col = col->second;
  place.index = place.index * width + place.col;
  return place;
}

}  // namespace assay
