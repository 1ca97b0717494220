// A block of rows and columns that holds another block's values: a tile that was stored in the wrong place,
// or not and an older one was. Whole rows: causes_moved.cpp.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "reference_cpu/causes/causes.h"

namespace assay {
namespace {

constexpr std::size_t kFewest = 16;                        // elements of a tile
constexpr std::int64_t kSearched = std::int64_t{1} << 24;  // elements of a field that is searched
constexpr std::int64_t kProbe = 4;                         // columns that a place is dismissed by

bool contiguous(const std::vector<std::int64_t>& lines) {
  return lines.back() - lines.front() + 1 == std::ssize(lines);
}

/// Legal orders of summation lie a neighbour apart.
bool alike(Stored out, Stored reference) {
  return is_finite(out) && is_finite(reference) && std::abs(ordinal(out) - ordinal(reference)) <= 1;
}

class MovedTile {
 public:
  MovedTile(const Evidence& evidence, const Window& window)
      : evidence_(evidence),
        rows_(window.rows),
        first_(window.columns.front()),
        count_(std::ssize(window.columns)) {}

  std::vector<Proposal> proposals() const {
    const std::int64_t probed = rows_[rows_.size() / 2];
    for (std::int64_t r = 0; r < evidence_.rows; ++r)
      for (std::int64_t c = 0; c + count_ <= evidence_.width; ++c) {
        const std::int64_t down = r - probed;
        const std::int64_t right = c - first_;
        if ((down == 0 && right == 0) || !row_alike(probed, down, right, std::min(kProbe, count_))) continue;
        if (rows_.front() + down < 0 || rows_.back() + down >= evidence_.rows) continue;
        if (std::ranges::all_of(rows_, [&](auto row) { return row_alike(row, down, right, count_); }))
          return {proposal(down, right)};
      }
    return {};
  }

 private:
  bool row_alike(std::int64_t row, std::int64_t down, std::int64_t right, std::int64_t count) const {
    for (std::int64_t c = first_; c < first_ + count; ++c)
      if (!alike(evidence_.out[index(evidence_, row, c)],
                 evidence_.reference[index(evidence_, row + down, c + right)]))
        return false;
    return true;
  }

  std::string block(std::int64_t down, std::int64_t right) const {
    std::vector<std::int64_t> rows;
    for (const auto r : rows_) rows.push_back(r + down);
    const auto first = first_ + right;
    const auto columns = count_ == 1 ? fmt::format("column {}", first)
                                     : fmt::format("columns {} to {}", first, first + count_ - 1);
    return fmt::format("{} of {}", columns, rows_listed(evidence_, rows));
  }

  Proposal proposal(std::int64_t down, std::int64_t right) const {
    return {"moved_tile", fmt::format("{} hold those of {}", block(0, 0), block(down, right)),
            by_element([&evidence = evidence_, down, right](std::int64_t r, std::int64_t c) {
              return evidence.reference[index(evidence, r + down, c + right)];
            }),
            true};
  }

  const Evidence& evidence_;
  const std::vector<std::int64_t>& rows_;
  std::int64_t first_;
  std::int64_t count_;
};

}  // namespace

std::vector<Proposal> propose_moved_tiles(const Evidence& evidence, const ErrorPlace& place) {
  const auto& [rows, columns] = place.window;
  const bool whole_rows = std::ssize(columns) == evidence.width;
  if (place.window.size() < kFewest || whole_rows || columns.size() < 2 || !contiguous(columns)) return {};
  if (evidence.rows * evidence.width > kSearched) return {};
  // One value everywhere is anybody's.
  const auto one = evidence.out[index(evidence, rows.front(), columns.front())];
  const bool same = std::ranges::all_of(rows, [&](std::int64_t r) {
    return std::ranges::all_of(columns,
                               [&](std::int64_t c) { return evidence.out[index(evidence, r, c)] == one; });
  });
  if (same) return {};
  return MovedTile(evidence, place.window).proposals();
}

}  // namespace assay
