#include "reference_cpu/stored_bits.h"

#include <algorithm>
#include <bit>

#include "harness/contract/layer.h"
#include "harness/contract/stored.h"
#include "harness/contract/worth_threads.h"

namespace assay {

LargeVector<PredictedBits> stored_bits(Field field, const PrecisionContract& contract,
                                       const Values<Predicted>& values) {
  const DType dtype = dtype_of(field, contract);
  // Rounding twice to one type is rounding once.
  const bool rounds = dtype == DType::BFloat16 || store_of(field, contract) == Store::Bf16;
  LargeVector<PredictedBits> bits(values.size());
#pragma omp parallel for schedule(static) if (worth_threads(values.size()))
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float x = values[i].value;
    bits[i] = {Stored(rounds ? to_float(round_to_bf16(x)) : x, dtype).bits(), values[i].undetermined};
  }
  return bits;
}

bool same_determined(const Values<Predicted>& a, const Values<Predicted>& b) {
  bool same = a.size() == b.size();
#pragma omp parallel for schedule(static) reduction(&& : same) if (worth_threads(a.size()))
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    same = same && !a[i].undetermined && !b[i].undetermined &&
           std::bit_cast<std::uint32_t>(a[i].value) == std::bit_cast<std::uint32_t>(b[i].value);
  return same;
}

}  // namespace assay
