// A window of one of the layer's products, recomputed with something changed.
#pragma once

#include <functional>
#include <optional>

#include "reference_cpu/causes/causes.h"

namespace assay {

/// The product behind router_logits, first_gemm or second_gemm: which operands its rows have.
struct ProductOperands {
  const Evidence* evidence = nullptr;
  std::int64_t k = 0;
  std::int64_t n = 0;
  std::int64_t left_rows = 0;
  Values<Predicted> left;            // [left_rows, k]
  std::vector<std::int32_t> source;  // [rows]: row of `left`
  std::vector<std::int32_t> expert;  // [rows]; 0 for the router
  std::int64_t experts = 1;
  Accumulator accumulator;

  std::span<const PredictedValue> left_of(std::int64_t row) const {
    return std::span(left).subspan(static_cast<std::size_t>(source[static_cast<std::size_t>(row)] * k),
                                   static_cast<std::size_t>(k));
  }
  ExpertMatrix weights(std::int64_t of_expert) const;  // [n, k], whatever their layout
};

ProductOperands operands_of(const Evidence& evidence);

/// What a hypothesis changes. Members left empty change nothing.
struct ProductChange {
  std::vector<std::int64_t> k_order{};  // position to index of K; -1 reads zero
  std::optional<Accumulator> accumulator{};
  bool bf16_every_term = false;  // running sum rounded after every term
  std::function<void(std::int64_t row, std::span<PredictedValue> left)>
      left{};                                              // edits the row's left operand
  std::function<std::int64_t(std::int64_t row)> expert{};  // whose weights the row uses
  /// Edits the weights of one output column [k], given the whole matrix [n, k] of its expert.
  std::function<void(std::span<const Bf16> whole, std::int64_t expert, std::int64_t column,
                     std::span<Bf16> weight)>
      weight{};
};

/// [window.rows, window.columns] before storing.
Values<Predicted> product(const ProductOperands& operands, const Window& window, const ProductChange& change);

/// The same, stored.
std::vector<Bf16> stored_bits(const Values<Predicted>& values);

}  // namespace assay
