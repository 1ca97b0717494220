// HuggingFace checkpoint folders: the MoE weights of one layer, straight from the safetensors files.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "harness/contract/problem.h"

namespace assay {

/// The weights of one MoE block. Experts are read when they are asked for; a file that was cut
/// short meanwhile throws InputError then.
struct MoeWeights {
  MoeConfig config;
  Tensor gate;  // [E, H]
  ExpertLoader experts;
  std::vector<std::string> remarks;  // what the block has beside the routed experts
};

/// The MoE sizes in a folder's config.json. Throws InputError when `layer` is dense or absent, or a size
/// lacks.
MoeConfig read_hf_config(const std::filesystem::path& folder, std::int64_t layer,
                         std::vector<std::string>& remarks);

/// The weights of layer `layer` of a checkpoint: config.json, one or several safetensors files, experts one
/// by one
/// (`experts.7.gate_proj.weight`, transformers 4) or fused (`experts.gate_up_proj`, transformers 5). Throws
/// InputError, also for what would make it another layer: a bias, a scale, two layouts that differ, a tensor
/// in two files. What stands beside the layer and changes nothing is a remark.
MoeWeights extract_hf_weights(const std::filesystem::path& folder, std::int64_t layer);

/// A layer of a checkpoint on an input, and what a report must tell of it.
struct LayerOfCheckpoint {
  Problem problem;
  std::vector<std::string> remarks;
};

/// A problem with those weights. `input` is bfloat16 [T, H] or [B, L, H]. Throws InputError when it is not.
LayerOfCheckpoint from_hf(const std::filesystem::path& folder, std::int64_t layer, Tensor input);

/// The first place where two sets of weights differ.
struct WeightDifference {
  Field field{};
  std::int64_t expert = 0;
  std::int64_t row = 0;
  std::int64_t col = 0;
  Bf16 first;
  Bf16 second;
};
std::string to_string(const WeightDifference& difference);

/// Compares gate, gate_up_proj and down_proj bit for bit, in this order. Throws InputError when the sizes
/// differ.
std::optional<WeightDifference> check_weights(const MoeWeights& first, const MoeWeights& second);

}  // namespace assay
