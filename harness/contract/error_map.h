// Where the rejected elements of a field lie, in bins that can be drawn: by maximum, so that no error
// vanishes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace assay {

/// What a bin shows beside 'a' (up to twice the bound), 'b' (up to four times), ... 'z'.
inline constexpr char kNothingOutside = '.';
inline constexpr char kNoRatio = '#';  // NaN, infinite, or of a field that must match exactly

/// The character of a rejected element, from its ratio |out - ref| / bound.
char error_level(double ratio);

/// Rows by columns of a field, or of a part of it. Bins are `bin_rows` by `bin_columns` elements; those at
/// the end of a band or of a row may have fewer. Where rows belong to experts, one after the other, each
/// expert with rows is a band, and no bin has rows of two.
struct ErrorMap {
  std::int64_t first_row = 0;
  std::int64_t first_column = 0;
  // elements that are covered
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t bin_rows = 1;
  std::int64_t bin_columns = 1;
  std::vector<std::pair<std::int64_t, std::int64_t>> bands;  // expert, its first row; empty: one band
  std::vector<std::string> levels;  // per row of bins from the top, a character per bin
  /// Per row of bins: of each bin with an error, in order, where in it the worst element is (row by row from
  /// 0), as place_digits() digits. Empty where a bin is one element.
  std::vector<std::string> places;

  std::int64_t column_bins() const { return (columns + bin_columns - 1) / bin_columns; }
};

/// A row of bins: which rows of the field it covers, and whose they are (-1: not of one expert).
struct BinRow {
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  std::int64_t expert = -1;
};
std::vector<BinRow> bin_rows(const ErrorMap& map);

/// Base-64 digits that a place inside a bin takes, most significant first, of kPlaceDigits.
int place_digits(const ErrorMap& map);
inline constexpr std::string_view kPlaceDigits =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";

/// How the error of a field looks: what a reader recognises a fault by.
struct ErrorPattern {
  ErrorMap map;                    // the whole field
  std::optional<ErrorMap> detail;  // element by element around the worst, where the map's bins are larger
  std::vector<std::pair<double, double>> rejected;  // reference, candidate: some of the rejected elements
  std::vector<std::pair<double, double>> sampled;   // and of all elements of the blocks that hold them
};

/// At most so many bins along either side: of the map of the first own error, and of every other.
inline constexpr std::int64_t kFineBins = 256, kCoarseBins = 48;
inline constexpr std::int64_t kDetailRows = 64, kDetailColumns = 64;

}  // namespace assay
