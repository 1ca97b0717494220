// What a pipeline is asked to compute: sizes, inputs, and weights behind a per-expert loader.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "harness/contract/field_set.h"

namespace assay {

/// Names a tensor that is regenerated instead of stored; `fixtures` turns it into values.
struct Generator {
  std::string fill;     // "gaussian", ... (fixtures/fill.h)
  std::string routing;  // "natural", ... : how gate and input are shaped to steer the router
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  Shape shape;
  double scale = 0.0;
  friend bool operator==(const Generator&, const Generator&) = default;
};

/// One expert's matrix, row-major; `owner` keeps the memory alive.
struct ExpertMatrix {
  std::span<const Bf16> values;  // gate_up_proj: [2I, H]; down_proj: [H, I]
  std::shared_ptr<const void> owner;
};

/// Loads one expert's matrix of `Field::gate_up_proj` or `Field::down_proj`. Safe to call from several
/// threads.
using ExpertLoader = std::function<ExpertMatrix(Field field, std::int64_t expert)>;

struct Problem {
  std::string name;  // fixture, file or checkpoint layer
  MoeConfig config;
  std::int64_t batch = 1;  // T = batch * sequence
  std::int64_t sequence = 0;
  Tensor input;            // input_hidden_states [T, H]
  Tensor output_gradient;  // d_hidden_states [T, H]; no elements where there is no backward pass
  Tensor gate;             // [E, H]
  ExpertLoader experts;
  std::uint64_t seed = 0;
  std::array<std::optional<Generator>, kFieldCount> generators;  // of inputs, weights and `previous` that are
                                                                 // regenerated
  /// Weight gradients of before, bf16 or float32: those of the backward pass are added to them. Each may be
  /// absent: that gradient starts from nothing.
  FieldSet previous;

  Sizes sizes() const { return {config, batch * sequence}; }
  bool has_previous() const {
    return std::ranges::any_of(kFields, [this](const FieldRow& field) { return previous.has(field.id); });
  }
};

/// A loader over two stored tensors [E, 2I, H] and [E, H, I].
ExpertLoader stored_experts(std::shared_ptr<const Tensor> gate_up_proj,
                            std::shared_ptr<const Tensor> down_proj);

/// Keeps loaded experts until `budget_bytes` are held, so that repeated passes do not load them again.
ExpertLoader cached_experts(ExpertLoader loader, std::size_t budget_bytes);

}  // namespace assay
