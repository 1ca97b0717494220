// How a matrix product sums: declared per product, beside the precision contract.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace assay {

enum class AccumulatorKind {
  Unknown,           // any order: only bounds apply
  Fp32Sequential,    // K ascending, round to nearest
  Fp32Pairwise,      // round to nearest; the tree splits at the largest power of two below n
  Hopper,            // K ascending, 16 products a step, 25 fractional bits, truncated (NUMERICS: tensor core)
  HopperAnySplit,    // `hopper`, or the one split of K that explains the whole field: cuBLAS chooses by shape
  HopperDescending,  // `hopper` on blocks of K, the last block first
  HopperInterleaved,  // `hopper`, blocks of K dealt in turn to partial sums, which are added in fp32 in
                      // ascending order
  Ampere,             // K ascending, 8 products a step, 24 fractional bits, truncated: Turing, Ampere, Ada
};

/// `hopper` with `splits` non-empty is `hopper_split(k1, k2, ...)`: the stretches of K, summed in fp32 in
/// ascending order.
struct Accumulator {
  AccumulatorKind kind = AccumulatorKind::Unknown;
  std::vector<std::int64_t> splits;
  std::int64_t block = 0;  // elements of K that HopperDescending and HopperInterleaved keep together
  std::int64_t parts = 0;  // partial sums of HopperInterleaved
  friend bool operator==(const Accumulator&, const Accumulator&) = default;
};

/// How the layer computes, beyond where it rounds: one accumulator for each product.
struct Accumulators {
  Accumulator router;
  Accumulator gate_up;
  Accumulator down;
  bool rest_as_torch =
      false;  // softmax, expf and sums over slots as torch's CUDA kernels; else their bits are not promised
  friend bool operator==(const Accumulators&, const Accumulators&) = default;
};

/// "hopper", "hopper_split(1408, 1408, 1280)", "hopper_descending(64)", "hopper_interleaved(2, 64)", ...
std::string to_string(const Accumulator& accumulator);

/// Reads what `to_string` writes. Throws UsageError listing the valid forms.
Accumulator parse_accumulator(std::string_view text);

/// Every valid form, for --help and messages.
std::string accumulator_forms();

}  // namespace assay
