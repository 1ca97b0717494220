// A bf16 matrix's columns as the other kernels read them. Compiled three times like product_kernels.cpp, with
// ASSAY_PACK naming the function.
#include "reference_cpu/product/kernel_vectors.h"
#include "reference_cpu/product/product_kernels.h"

namespace assay {
namespace {

constexpr std::int64_t kPairs = 64;  // of terms, in one go: 16 columns of them lie in the first cache
/// Terms 2 i and 2 i + 1 of each column side by side, the first in the low half; zeros where there is none.
/// Each column is walked alone: columns that lie a power of two apart would drive each other from the cache.
void take_pairs(const Bf16Columns& from, std::int64_t first, std::int64_t pairs,
                std::uint32_t (*words)[kPanelColumns]) {
  for (int c = 0; c < kPanelColumns; ++c) {
    const std::uint16_t* column = from.words + c * from.by_column + 2 * first * from.by_term;
    const std::int64_t terms = c < from.count ? from.k - 2 * first : 0;
    for (std::int64_t i = 0; i < pairs; ++i) {
      const std::uint32_t low = 2 * i < terms ? column[2 * i * from.by_term] : 0;
      const std::uint32_t high = 2 * i + 1 < terms ? column[(2 * i + 1) * from.by_term] : 0;
      words[i][c] = low | high << 16;
    }
  }
}

/// The same of whole pairs, four at a time, of 16 columns whose terms lie one after the other.
void take_pairs_along_columns(const Bf16Columns& from, std::int64_t first, std::int64_t pairs,
                              std::uint32_t (*words)[kPanelColumns]) {
  using Four = std::uint32_t __attribute__((vector_size(16)));
  for (int c = 0; c < kPanelColumns; c += 4) {
    const std::uint16_t* column = from.words + c * from.by_column + 2 * first;
    for (std::int64_t i = 0; i < pairs; i += 4) {
      Four of_column[4];
      for (int j = 0; j < 4; ++j) of_column[j] = load<Four>(column + j * from.by_column + 2 * i);
      const auto& [c0, c1, c2, c3] = of_column;
      // Of two columns each, pairs 0 and 1, and pairs 2 and 3.
      const Four left[2] = {__builtin_shufflevector(c0, c1, 0, 4, 1, 5),
                            __builtin_shufflevector(c0, c1, 2, 6, 3, 7)};
      const Four right[2] = {__builtin_shufflevector(c2, c3, 0, 4, 1, 5),
                             __builtin_shufflevector(c2, c3, 2, 6, 3, 7)};
      for (int half = 0; half < 2; ++half) {
        save(&words[i + 2 * half][c], __builtin_shufflevector(left[half], right[half], 0, 1, 4, 5));
        save(&words[i + 2 * half + 1][c], __builtin_shufflevector(left[half], right[half], 2, 3, 6, 7));
      }
    }
  }
}

/// The same of 16 columns that lie side by side.
void take_pairs_along_rows(const Bf16Columns& from, std::int64_t first, std::int64_t pairs,
                           std::uint32_t (*words)[kPanelColumns]) {
  for (std::int64_t i = 0; i < pairs; ++i) {
    const std::uint16_t* low = from.words + 2 * (first + i) * from.by_term;
    const std::uint16_t* high = low + from.by_term;
    for (int c = 0; c < kPanelColumns; ++c)
      words[i][c] = static_cast<std::uint32_t>(low[c]) | static_cast<std::uint32_t>(high[c]) << 16;
  }
}

/// Exponents of 16-bit numbers, and where one is neither a normal number nor zero.
Shorts exponents_of(Shorts words, Shorts& outside) {
  const Shorts magnitude = words & 0x7fff;
  outside |= (magnitude != 0) & ((magnitude < 0x0080) | (magnitude >= 0x7f80));
  return magnitude == 0 ? Shorts{} + kZeroExponent : (magnitude >> 7) - 127;
}

}  // namespace

void ASSAY_PACK(const Bf16Columns& from, std::int64_t padded_k, float* values, std::int16_t* exponents,
                bool* outside);
void ASSAY_PACK(const Bf16Columns& from, std::int64_t padded_k, float* values, std::int16_t* exponents,
                bool* outside) {
  constexpr int kParts = kPanelColumns / kLanes;
  std::uint32_t words[kPairs][kPanelColumns];
  Shorts odd[kParts] = {};
  for (std::int64_t first = 0; first < padded_k / 2; first += kPairs) {
    const std::int64_t pairs = padded_k / 2 - first < kPairs ? padded_k / 2 - first : kPairs;
    const bool whole = from.count == kPanelColumns && 2 * (first + pairs) <= from.k;
    if (whole && from.by_term == 1)
      take_pairs_along_columns(from, first, pairs, words);
    else if (whole && from.by_column == 1)
      take_pairs_along_rows(from, first, pairs, words);
    else
      take_pairs(from, first, pairs, words);
    for (std::int64_t i = 0; i < pairs; ++i)
      for (int part = 0; part < kParts; ++part) {
        const auto pair = load<UnsignedInts>(words[i] + part * kLanes);
        float* to = values + 2 * (first + i) * kPanelColumns + part * kLanes;
        save(to, pair << 16);
        save(to + kPanelColumns, pair & 0xffff0000u);
        if (exponents != nullptr)
          save(exponents + 2 * ((first + i) * kPanelColumns + part * kLanes),
               exponents_of((Shorts)pair, odd[part]));
      }
  }
  if (exponents == nullptr) return;
  std::int16_t of_columns[2 * kPanelColumns];
  __builtin_memcpy(of_columns, odd, sizeof of_columns);
  for (int c = 0; c < kPanelColumns; ++c) outside[c] = (of_columns[2 * c] | of_columns[2 * c + 1]) != 0;
}

}  // namespace assay
