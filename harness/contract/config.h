// The shape of one MoE layer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace assay {

/// Sizes of a Qwen3 MoE layer, under HuggingFace's names; the letters are those of the field table.
struct MoeConfig {
  std::int64_t hidden_size = 0;            // H
  std::int64_t moe_intermediate_size = 0;  // I
  std::int64_t num_experts = 0;            // E
  std::int64_t top_k = 0;                  // K (num_experts_per_tok)
  bool norm_topk_prob = true;

  friend bool operator==(const MoeConfig&, const MoeConfig&) = default;
};

/// The reason why the config is not valid, or nothing: every size is positive and top_k <= num_experts.
std::optional<std::string> invalid(const MoeConfig& config);

/// Sizes of a problem: the layer's and the number of tokens.
struct Sizes {
  MoeConfig config;
  std::int64_t tokens = 0;                                      // T
  std::int64_t slots() const { return tokens * config.top_k; }  // S = T * K
};

}  // namespace assay
