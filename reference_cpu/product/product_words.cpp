// A predicted product as the words it is stored as, without its values in memory.
#include <algorithm>
#include <atomic>
#include <vector>

#include "harness/contract/worth_threads.h"
#include "reference_cpu/product/product.h"
#include "reference_cpu/product/product_kernels.h"
#include "reference_cpu/product/product_operands.h"

namespace assay {
namespace {

bool one_pass_on_a_tensor_core(const Summation& order, std::int64_t k) {
  const bool truncates = order.rule == StepRule::Truncate16 || order.rule == StepRule::Truncate8;
  return truncates && order.stretches.size() == 1 && order.stretches[0].begin == 0 &&
         order.stretches[0].end == k;
}

/// All of the right operand; empty where some of it is undetermined or outside what was measured.
std::vector<PackedPanel> packed_columns(const GroupedProduct<PredictedValue>& p) {
  std::vector<PackedPanel> panels(static_cast<std::size_t>(p.n / kPanelColumns));
  std::atomic<bool> open = false;
#pragma omp parallel for schedule(static) if (worth_threads(4 * p.n * p.k))
  for (std::size_t i = 0; i < panels.size(); ++i) {
    PackedPanel& panel = panels[i];
    const auto first = static_cast<std::int64_t>(i) * kPanelColumns;
    panel.pack(p.right, {p.k, p.n, first, kPanelColumns, p.right_lies});
    for (int c = 0; c < kPanelColumns; ++c)
      if (panel.outside[c] || panel.undetermined[c]) open = true;
  }
  if (open) panels.clear();
  return panels;
}

}  // namespace

bool product_words(const GroupedProduct<PredictedValue>& p, std::span<std::uint16_t> words) {
  const bool one_group = p.offsets.size() == 2 && !p.weights;
  if (!one_group || p.engine != nullptr || p.fault.kind != FaultKind::None || p.n % kPanelColumns != 0)
    return false;
  if (p.k == 0 || words.empty()) {
    std::ranges::fill(words, std::uint16_t{0});
    return true;
  }
  const PredictedRows left(p);
  const auto any = [](const std::vector<std::uint8_t>& flags) {
    return std::ranges::count(flags, 0) != std::ssize(flags);
  };
  if (!one_pass_on_a_tensor_core(left.order, p.k) || any(left.outside) || any(left.undetermined))
    return false;
  const auto packed = packed_columns(p);
  if (packed.empty()) return false;
  std::vector<Panel> panels;
  for (const auto& panel : packed) panels.push_back(panel.view(p.k));
  const auto rows = static_cast<std::int64_t>(p.source.size());
  const auto sum = kernels_in_use().tensor_core_words;
  std::atomic<bool> open = false;
#pragma omp parallel for schedule(static) if (worth_threads(rows * p.n * p.k))
  for (std::int64_t row = 0; row < rows; row += kTensorRows) {
    TensorRow of[kTensorRows];
    const auto count = static_cast<int>(std::min<std::int64_t>(kTensorRows, rows - row));
    for (int i = 0; i < count; ++i) {
      const auto at = p.source[static_cast<std::size_t>(row + i)] * left.stride;
      of[i] = {left.values.data() + at, left.exponents.data() + at, nullptr, nullptr};
    }
    if (!sum(panels.data(), std::ssize(panels), left.order.rule, of, count, words.data() + row * p.n))
      open = true;
  }
  return !open;
}

}  // namespace assay
