#include "reference_cpu/product/kept_panels.h"

#include <utility>

namespace assay {
namespace {

thread_local KeptPanels* of_thread = nullptr;

}  // namespace

KeptPanels::KeptPanels(std::size_t bytes) : bytes_left_(bytes), outer_(std::exchange(of_thread, this)) {}

KeptPanels::~KeptPanels() { of_thread = outer_; }

KeptPanels* KeptPanels::of_this_thread() { return of_thread; }

const PackedPanel* KeptPanels::find(const ExpertMatrix& weights, const PanelPlace& place) {
  const auto key = std::pair(weights.values.data(), place.lies);
  const auto which = static_cast<std::size_t>(place.first / kPanelColumns);
  const auto bytes =
      static_cast<std::size_t>(padded(place.k) * kPanelColumns) * (sizeof(float) + sizeof(std::int16_t));
  {
    const std::lock_guard lock(mutex_);
    const auto found = matrices_.find(key);
    if (found != matrices_.end() && found->second.panels[which] != nullptr)
      return found->second.panels[which].get();
    if (!open_ || weights.owner == nullptr || bytes > bytes_left_) return nullptr;
    bytes_left_ -= bytes;
  }
  auto panel = std::make_unique<PackedPanel>();
  panel->pack(weights.values, place, true);
  const std::lock_guard lock(mutex_);
  auto& matrix = matrices_[key];
  matrix.owner = weights.owner;
  matrix.panels.resize(static_cast<std::size_t>((place.n + kPanelColumns - 1) / kPanelColumns));
  auto& kept = matrix.panels[which];
  if (kept == nullptr) kept = std::move(panel);
  return kept.get();
}

}  // namespace assay
