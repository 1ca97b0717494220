#include "reference_cpu/topk_torch.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace assay {
namespace {

constexpr int kWidth = 32;

struct Entry {
  float key = 0.0f;
  std::int32_t index = 0;
  bool valid = false;
};

/// Thread t handles position 2t - (t mod stride) and its partner at distance stride.
void merge_pass(Entry* entries, int stride, int size, bool final_merge) {
  for (int t = 0; t < kWidth / 2; ++t) {
    const int position = 2 * t - (t & (stride - 1));
    Entry& a = entries[position];
    Entry& b = entries[position + stride];
    const bool direction = !final_merge && (t & (size / 2)) != 0;
    // Descending, empty places last; equal keys are "not greater" and so may change places.
    const bool ordered = (a.valid && a.key > b.key) || !b.valid;
    if (ordered == direction) std::swap(a, b);
  }
}

void bitonic_sort(Entry* entries) {
  for (int size = 2; size < kWidth; size *= 2)
    for (int stride = size / 2; stride > 0; stride /= 2) merge_pass(entries, stride, size, false);
  for (int stride = kWidth / 2; stride > 0; stride /= 2) merge_pass(entries, stride, kWidth, true);
}

}  // namespace

std::vector<std::int32_t> topk_torch(std::span<const float> values, std::int64_t top_k) {
  std::vector<float> sorted(values.begin(), values.end());
  std::nth_element(sorted.begin(), sorted.begin() + (top_k - 1), sorted.end(), std::greater<>());
  const float kth = sorted[static_cast<std::size_t>(top_k - 1)];
  Entry entries[kWidth];
  int count = 0;
  for (std::size_t i = 0; i < values.size(); ++i)
    if (values[i] > kth && count < kWidth) entries[count++] = {values[i], static_cast<std::int32_t>(i), true};
  for (std::size_t i = 0; i < values.size() && count < top_k && count < kWidth; ++i)
    if (values[i] == kth) entries[count++] = {values[i], static_cast<std::int32_t>(i), true};
  bitonic_sort(entries);
  std::vector<std::int32_t> result;
  for (int j = 0; j < top_k && j < kWidth; ++j) result.push_back(entries[j].index);
  return result;
}

std::vector<std::int32_t> topk_lowest_index(std::span<const double> values, std::int64_t top_k) {
  std::vector<std::int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int32_t a, std::int32_t b) {
    return values[static_cast<std::size_t>(a)] > values[static_cast<std::size_t>(b)];
  });
  order.resize(static_cast<std::size_t>(top_k));
  return order;
}

}  // namespace assay
