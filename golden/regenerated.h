// Expert weights of a file: stored whole, or regenerated expert by expert and checked against their hashes.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "golden/schema.h"
#include "harness/contract/problem.h"

namespace assay {

/// Where one of gate_up_proj and down_proj comes from.
struct WeightSource {
  std::shared_ptr<const Tensor> stored;
  std::optional<StoredGenerator> regenerated;
  bool present() const { return stored != nullptr || regenerated.has_value(); }
};

using ExpertRegenerator = std::function<ExpertMatrix(const Generator&, Field, std::int64_t expert)>;

/// A loader over both sources. A regenerated expert is checked when it is first loaded: InputError naming it
/// on a difference.
ExpertLoader expert_loader(WeightSource gate_up, WeightSource down, ExpertRegenerator regenerate);

/// SHA-256 of every expert's matrix, computed in parallel. `field` is gate_up_proj or down_proj.
std::vector<std::string> expert_hashes(const ExpertLoader& experts, Field field, std::int64_t num_experts);

}  // namespace assay
