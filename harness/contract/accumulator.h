// How a matrix product sums: declared per product, beside the precision contract.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "harness/contract/layer.h"

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
  std::array<Accumulator, kProductCount> of;
  // Softmax, expf and sums over slots are torch's CUDA kernels'; else their bits are not promised.
  bool rest_as_torch = false;

  Accumulator& operator[](ProductId product) { return of[static_cast<std::size_t>(product)]; }
  const Accumulator& operator[](ProductId product) const { return of[static_cast<std::size_t>(product)]; }
  friend bool operator==(const Accumulators&, const Accumulators&) = default;
};

/// The same accumulator for every product.
Accumulators every_product(const Accumulator& accumulator, bool rest_as_torch = false);

/// What predictions rely on: the declared accumulators, and where none is declared a tensor core of Hopper's
/// with any split of K.
Accumulators assumed_where_unknown(const Accumulators& declared);

/// "hopper", "hopper_split(1408, 1408, 1280)", "hopper_descending(64)", "hopper_interleaved(2, 64)", ...
std::string to_string(const Accumulator& accumulator);

/// Reads what `to_string` writes. Throws UsageError listing the valid forms.
Accumulator parse_accumulator(std::string_view text);

/// Every valid form, for --help and messages.
std::string accumulator_forms();

}  // namespace assay
