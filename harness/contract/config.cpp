#include "harness/contract/config.h"

#include <fmt/format.h>

namespace assay {

std::optional<std::string> invalid(const MoeConfig& config) {
  const std::pair<const char*, std::int64_t> sizes[] = {
      {"hidden_size", config.hidden_size},
      {"moe_intermediate_size", config.moe_intermediate_size},
      {"num_experts", config.num_experts},
      {"top_k", config.top_k},
  };
  constexpr std::int64_t kLargest = 1 << 20;  // keeps every product of three sizes inside 63 bits
  for (const auto& [name, size] : sizes) {
    if (size < 1 || size > kLargest)
      return fmt::format("{} must lie in 1..{}, found {}", name, kLargest, size);
  }
  if (config.top_k > config.num_experts)
    return fmt::format("top_k must not exceed num_experts ({}), found {}", config.num_experts, config.top_k);
  return std::nullopt;
}

}  // namespace assay
