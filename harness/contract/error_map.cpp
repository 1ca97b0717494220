#include "harness/contract/error_map.h"

#include <algorithm>
#include <cmath>

namespace assay {

char error_level(double ratio) {
  if (!std::isfinite(ratio)) return kNoRatio;
  return static_cast<char>('a' +
                           std::clamp(static_cast<int>(std::floor(std::log2(std::max(ratio, 1.0)))), 0, 25));
}

std::vector<BinRow> bin_rows(const ErrorMap& map) {
  std::vector<BinRow> bins;
  const auto add = [&](std::int64_t begin, std::int64_t end, std::int64_t expert) {
    for (std::int64_t row = begin; row < end; row += map.bin_rows)
      bins.push_back({row, std::min(map.bin_rows, end - row), expert});
  };
  const std::int64_t end = map.first_row + map.rows;
  if (map.bands.empty()) add(map.first_row, end, -1);
  for (std::size_t i = 0; i < map.bands.size(); ++i)
    add(map.bands[i].second, i + 1 < map.bands.size() ? map.bands[i + 1].second : end, map.bands[i].first);
  return bins;
}

int place_digits(const ErrorMap& map) {
  int digits = 0;
  for (std::int64_t places = map.bin_rows * map.bin_columns; places > 1; places = (places + 63) / 64)
    ++digits;
  return digits;
}

}  // namespace assay
