#include "harness/contract/product_intervals.h"

namespace assay {

__attribute__((target_clones("avx512f", "avx2", "default"))) void product_intervals(
    const ElementConstants& constants, const SumsOfElements& sums, const bool* exact, int count,
    Interval* out) {
  double low[kElementsAtOnce];
  double high[kElementsAtOnce];
  double variance[kElementsAtOnce];
  for (int i = 0; i < count; ++i) {
    const double delta = constants.half_width(sums.spread[i], sums.running[i]);
    low[i] = sums.ref[i] - delta;
    high[i] = sums.ref[i] + delta;
    variance[i] = constants.variance(sums.ref[i], sums.squares[i]);
  }
  for (int i = 0; i < count; ++i) {
    const double ref = sums.ref[i];
    out[i] = exact[i] ? Interval(ref, ref, ref) : with_noise({ref, low[i], high[i]}, std::sqrt(variance[i]));
  }
}

}  // namespace assay
