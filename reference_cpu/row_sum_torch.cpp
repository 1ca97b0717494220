#include "reference_cpu/row_sum_torch.h"

#include <algorithm>
#include <bit>
#include <vector>

namespace assay {
namespace {

constexpr std::int64_t kMostThreads = 512;
constexpr std::int64_t kWarp = 32;
constexpr std::int64_t kPartials = 4;
constexpr std::int64_t kLeastVectorised = 128;

std::int64_t power_of_two_up_to(std::int64_t n) {
  return static_cast<std::int64_t>(
      std::bit_floor(static_cast<std::uint64_t>(std::clamp(n, std::int64_t{1}, kMostThreads))));
}

struct Block {
  std::int64_t width, height;
};

Block block_of(std::int64_t length, std::int64_t rows) {
  const std::int64_t most_width = power_of_two_up_to(length);
  const std::int64_t height = std::min(power_of_two_up_to(rows), kMostThreads / std::min(most_width, kWarp));
  return {std::min(most_width, kMostThreads / height), height};
}

}  // namespace

PredictedValue row_sum_torch(std::span<const PredictedValue> row, std::int64_t rows) {
  const auto n = static_cast<std::int64_t>(row.size());
  const bool vectorised = rows == 1 && n >= kLeastVectorised;
  const Block block = block_of(vectorised ? n / kPartials : n, rows);
  std::vector<PredictedValue> partials(static_cast<std::size_t>(kPartials * block.width));
  const auto partial = [&](std::int64_t thread, std::int64_t i) -> PredictedValue& {
    return partials[static_cast<std::size_t>(thread * kPartials + i)];
  };
  const std::int64_t vectors_end = n - n % kPartials;
  for (std::int64_t k = 0; k < n; ++k) {
    const auto& x = row[static_cast<std::size_t>(k)];
    if (!vectorised) {
      auto& sum = partial(k % block.width, k / block.width % kPartials);
      sum = add(sum, x);
    } else if (k < vectors_end) {
      auto& sum = partial(k / kPartials % block.width, k % kPartials);
      sum = add(sum, x);
    } else {
      auto& sum = partial(k - vectors_end, 0);
      sum = add(sum, x);
    }
  }
  std::vector<PredictedValue> threads(static_cast<std::size_t>(block.width));
  for (std::int64_t t = 0; t < block.width; ++t)
    threads[static_cast<std::size_t>(t)] =
        add(add(add(partial(t, 0), partial(t, 1)), partial(t, 2)), partial(t, 3));
  for (std::int64_t distance = block.width / 2; distance > 0; distance /= 2)
    for (std::int64_t t = 0; t < distance; ++t)
      threads[static_cast<std::size_t>(t)] =
          add(threads[static_cast<std::size_t>(t)], threads[static_cast<std::size_t>(t + distance)]);
  PredictedValue sum = threads[0];
  const std::int64_t per_thread = (n + block.width - 1) / block.width;
  sum.undetermined =
      sum.undetermined || (block.height > 1 && per_thread >= 16 * block.height) || per_thread >= 256;
  return sum;
}

}  // namespace assay
