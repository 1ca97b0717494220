// The shape of one MoE layer.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>

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

/// Calls `visit(name, member)` for every member once, in the order of the struct. Whoever reads, writes,
/// checks or prints a config goes through here, so that one member more is one line more.
template <class Config, class Visit>
  requires std::same_as<std::remove_const_t<Config>, MoeConfig>
constexpr void for_each_member(Config& config, Visit&& visit) {
  visit("hidden_size", config.hidden_size);
  visit("moe_intermediate_size", config.moe_intermediate_size);
  visit("num_experts", config.num_experts);
  visit("top_k", config.top_k);
  visit("norm_topk_prob", config.norm_topk_prob);
}

/// "hidden_size 64, moe_intermediate_size 32, num_experts 8, top_k 4, norm_topk_prob true".
std::string to_string(const MoeConfig& config);

/// The reason why the config is not valid, or nothing: every size is positive and top_k <= num_experts.
std::optional<std::string> invalid(const MoeConfig& config);

/// Sizes of a problem: the layer's and the number of tokens.
struct Sizes {
  MoeConfig config;
  std::int64_t tokens = 0;                                      // T
  std::int64_t slots() const { return tokens * config.top_k; }  // S = T * K
};

}  // namespace assay
