// Fills an ErrorMap: the worst rejected element of each bin.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/contract/error_map.h"

namespace assay {

/// `shape` with its bins doubled until there are at most `most` along either side. More bands than that are
/// not kept apart.
ErrorMap fitted(ErrorMap shape, std::int64_t most);

/// A saved report may hold anything: whether the bins are those that the levels are given for.
bool sound(const ErrorMap& map);

class ErrorGrid {
 public:
  /// Levels and places of `shape` do not matter.
  explicit ErrorGrid(ErrorMap shape);

  struct Worst {
    double ratio = 0.0;
    // of the field; -1: nothing rejected
    std::int64_t row = -1;
    std::int64_t column = -1;
  };
  /// Row and column of the field, inside of what the map covers. Of equal ratios the first stays.
  void add(std::int64_t row, std::int64_t column, double ratio);
  void add(const ErrorGrid& finer);
  std::size_t row_bin(std::int64_t row) const;
  ErrorMap map() const;

 private:
  ErrorMap shape_;
  std::vector<BinRow> rows_;
  std::vector<Worst> bins_;  // [row bins, column bins]
};

/// The map in at most `most` bins along either side, each by the worst of those it holds: of equal levels the
/// first, for a map knows no more. A map that is not sound stays as it is.
ErrorMap coarser(const ErrorMap& map, std::int64_t most);

}  // namespace assay
