// Whether bytes are still what they were: fast, against accidents, not against an adversary.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace assay {

/// Four lanes of multiply and rotate over 8-byte words, so that large tensors pass at memory speed.
inline std::uint64_t fingerprint(std::span<const std::byte> bytes) {
  constexpr std::uint64_t kMultiplier = 0x9e3779b97f4a7c15u;
  std::array<std::uint64_t, 4> lanes = {1, 2, 3, 4};
  const auto take = [&](std::size_t lane, std::uint64_t word) {
    const std::uint64_t mixed = (lanes[lane] ^ word) * kMultiplier;
    lanes[lane] = mixed << 31 | mixed >> 33;
  };
  std::size_t at = 0;
  for (; at + 32 <= bytes.size(); at += 32) {
    std::array<std::uint64_t, 4> words;
    std::memcpy(words.data(), bytes.data() + at, sizeof(words));
    for (std::size_t lane = 0; lane < 4; ++lane) take(lane, words[lane]);
  }
  for (; at < bytes.size(); ++at) take(0, std::to_integer<std::uint64_t>(bytes[at]));
  for (std::size_t lane = 1; lane < 4; ++lane) take(0, lanes[lane]);
  take(0, bytes.size());
  return lanes[0] ^ lanes[0] >> 29;
}

}  // namespace assay
