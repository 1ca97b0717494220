// The inner loop of a product whose operands both have errors. Compiled three times like product_kernels.cpp,
// with ASSAY_INTERVALS naming the function.
#include "reference_cpu/product/product_kernels.h"

namespace assay {
namespace {

// One lane per column: the compiler cuts them into vectors of the machine's width, every width gives the same
// bits.
using PanelFloats = float __attribute__((vector_size(kPanelColumns * sizeof(float))));
using PanelDoubles = double __attribute__((vector_size(kPanelColumns * sizeof(double))));

template <class V, class T>
V load(const T* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof(V));
  return value;
}

}  // namespace

void ASSAY_INTERVALS(const IntervalPanel& panel, const IntervalRow& row, BoundedSums* out);
void ASSAY_INTERVALS(const IntervalPanel& panel, const IntervalRow& row, BoundedSums* out) {
  PanelDoubles ref = {};
  PanelFloats spread = {};
  PanelFloats squares = {};
  PanelFloats running = {};
  for (std::int64_t k = 0; k < panel.k - kDroppedTerms; ++k) {
    const std::int64_t at = k * kPanelColumns;
    ref += row.row.ref[k] * load<PanelDoubles>(panel.ref + at);
    spread += row.row.spread[k] * load<PanelFloats>(panel.outer + at) +
              row.magnitude[k] * load<PanelFloats>(panel.width + at);
    squares += row.row.squares[k] * load<PanelFloats>(panel.squares + at) +
               row.moment[k] * load<PanelFloats>(panel.noise + at);
  }
  __builtin_memcpy(out->ref, &ref, sizeof ref);
  __builtin_memcpy(out->spread, &spread, sizeof spread);
  __builtin_memcpy(out->squares, &squares, sizeof squares);
  __builtin_memcpy(out->running, &running, sizeof running);
}

}  // namespace assay
