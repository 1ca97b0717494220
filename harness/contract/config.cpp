#include "harness/contract/config.h"

#include <fmt/format.h>

namespace assay {

std::string to_string(const MoeConfig& config) {
  std::string text;
  for_each_member(config, [&](const char* name, const auto& member) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, member);
  });
  return text;
}

std::optional<std::string> invalid(const MoeConfig& config) {
  constexpr std::int64_t kLargest = 1 << 20;  // keeps every product of three sizes inside 63 bits
  std::optional<std::string> reason;
  for_each_member(config, [&](const char* name, const auto& member) {
    if constexpr (!std::same_as<decltype(member), const bool&>)
      if (!reason && (member < 1 || member > kLargest))
        reason = fmt::format("{} must lie in 1..{}, found {}", name, kLargest, member);
  });
  if (reason) return reason;
  if (config.top_k > config.num_experts)
    return fmt::format("top_k must not exceed num_experts ({}), found {}", config.num_experts, config.top_k);
  return std::nullopt;
}

}  // namespace assay
