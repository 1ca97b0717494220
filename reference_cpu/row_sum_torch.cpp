#include "reference_cpu/row_sum_torch.h"

#include <algorithm>
#include <bit>
#include <vector>

namespace assay {
namespace {

constexpr std::int64_t kMostThreads = 512;
constexpr std::int64_t kWarp = 32;
constexpr std::int64_t kPartials = 4;
constexpr std::int64_t kVector = 8;
constexpr std::int64_t kLeastVectorised = 128;

std::int64_t power_of_two_up_to(std::int64_t n) {
  return static_cast<std::int64_t>(
      std::bit_floor(static_cast<std::uint64_t>(std::clamp(n, std::int64_t{1}, kMostThreads))));
}

struct Block {
  std::int64_t width;
  std::int64_t height;
};

Block block_of(std::int64_t loads, std::int64_t rows) {
  const std::int64_t most_width = power_of_two_up_to(loads);
  const std::int64_t height = std::min(power_of_two_up_to(rows), kMostThreads / std::min(most_width, kWarp));
  return {std::min(most_width, kMostThreads / height), height};
}

/// Which thread adds element k, and into which of its partial sums.
struct Adder {
  std::int64_t thread;
  std::int64_t partial;
};

Adder adder_of(std::int64_t k, std::int64_t length, std::int64_t index, std::int64_t width) {
  if (length < kLeastVectorised) return {k % width, k / width % kPartials};
  const std::int64_t shift = index * length % kVector;
  const std::int64_t head = shift == 0 ? 0 : kVector - shift;
  if (k < head) return {k + shift, 0};
  const std::int64_t at = k - head;
  const std::int64_t whole = (length - head) / kVector * kVector;
  if (at >= whole) return {at - whole, 0};
  return {at / kVector % width, at % kVector};
}

}  // namespace

PredictedValue row_sum_torch(std::span<const PredictedValue> row, std::int64_t index, std::int64_t rows) {
  const auto n = static_cast<std::int64_t>(row.size());
  const bool vectorised = n >= kLeastVectorised;
  const std::int64_t partials = vectorised ? kVector : kPartials;
  const Block block = block_of(vectorised ? n / kVector : n, rows);
  std::vector<PredictedValue> sums(static_cast<std::size_t>(partials * block.width));
  for (std::int64_t k = 0; k < n; ++k) {  // ascending: what is before the vectors is added before them
    const auto [thread, partial] = adder_of(k, n, index, block.width);
    auto& sum = sums[static_cast<std::size_t>(thread * partials + partial)];
    sum = add(sum, row[static_cast<std::size_t>(k)]);
  }
  std::vector<PredictedValue> threads(static_cast<std::size_t>(block.width));
  for (std::size_t t = 0; t < threads.size(); ++t) {
    const auto own =
        std::span(sums).subspan(t * static_cast<std::size_t>(partials), static_cast<std::size_t>(partials));
    threads[t] = own[0];
    for (const auto& partial : own.subspan(1)) threads[t] = add(threads[t], partial);
  }
  for (auto distance = threads.size() / 2; distance > 0; distance /= 2)
    for (std::size_t t = 0; t < distance; ++t) threads[t] = add(threads[t], threads[t + distance]);
  PredictedValue sum = threads[0];
  const std::int64_t per_thread = (n + block.width - 1) / block.width;
  const bool split = (block.height > 1 && per_thread >= 16 * block.height) || per_thread >= 256;
  sum.undetermined = sum.undetermined || split;
  return sum;
}

}  // namespace assay
