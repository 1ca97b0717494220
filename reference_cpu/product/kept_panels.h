// Packed right operands that are kept. To pack a matrix takes longer than to multiply a row or two with it,
// and a search for causes multiplies a few rows with the same weights hundreds of times.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "harness/contract/problem.h"
#include "reference_cpu/product/packed_panel.h"

namespace assay {

/// Serves the predicted products that the thread which made it calls for, while it lives.
class KeptPanels {
 public:
  explicit KeptPanels(std::size_t bytes);
  ~KeptPanels();
  KeptPanels(const KeptPanels&) = delete;
  KeptPanels& operator=(const KeptPanels&) = delete;

  static KeptPanels* of_this_thread();

  /// Nothing more is kept: matrices that single trials make up would take the room.
  void close() { open_ = false; }

  /// The columns of `weights`, packed with exponents; null where they are not kept. Called by many threads.
  const PackedPanel* find(const ExpertMatrix& weights, const PanelPlace& place);

 private:
  struct Matrix {
    std::shared_ptr<const void> owner;                 // nothing else comes to lie at its address
    std::vector<std::unique_ptr<PackedPanel>> panels;  // by their first column
  };
  std::map<std::pair<const Bf16*, Lies>, Matrix> matrices_;
  std::mutex mutex_;
  std::size_t bytes_left_;
  bool open_ = true;
  KeptPanels* outer_;
};

}  // namespace assay
