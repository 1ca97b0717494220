#include "harness/cli/shard.h"

#include <charconv>
#include <cstdlib>
#include <optional>

#include <fmt/format.h>

#include "harness/contract/error.h"

namespace assay::cli {
namespace {

std::optional<std::size_t> number(std::string_view text) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<std::size_t> variable(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0') return std::nullopt;
  const auto value = number(text);
  if (!value) throw UsageError(fmt::format("--shard auto: expected a number in {}, found '{}'", name, text));
  return value;
}

std::optional<Shard> pair(std::string_view text, std::string_view between) {
  const auto at = text.find(between);
  if (at == std::string_view::npos) return std::nullopt;
  const auto index = number(text.substr(0, at));
  const auto of = number(text.substr(at + between.size()));
  if (!index || !of || *index < 1 || *index > *of) return std::nullopt;
  return Shard{*index, *of};
}

Shard of_environment() {
  if (const char* text = std::getenv("ASSAY_SHARD"); text != nullptr && *text != '\0') {
    if (const auto shard = pair(text, "/")) return *shard;
    throw UsageError(fmt::format("ASSAY_SHARD: expected I/N with 1 <= I <= N, found '{}'", text));
  }
  if (const auto task = variable("SLURM_ARRAY_TASK_ID"), count = variable("SLURM_ARRAY_TASK_COUNT");
      task && count) {
    const std::size_t first = variable("SLURM_ARRAY_TASK_MIN").value_or(1);
    if (*task >= first && *task - first < *count) return {*task - first + 1, *count};
    throw UsageError(fmt::format(
        "--shard auto: expected SLURM_ARRAY_TASK_ID from {} to {}, found {}: give the array no step", first,
        first + *count - 1, *task));
  }
  if (const auto node = variable("CI_NODE_INDEX"), total = variable("CI_NODE_TOTAL"); node && total) {
    if (*node >= 1 && *node <= *total) return {*node, *total};
    throw UsageError(
        fmt::format("--shard auto: expected CI_NODE_INDEX from 1 to {}, found {}", *total, *node));
  }
  throw UsageError(
      "--shard auto: none of ASSAY_SHARD (I/N), SLURM_ARRAY_TASK_ID with SLURM_ARRAY_TASK_COUNT, "
      "CI_NODE_INDEX with "
      "CI_NODE_TOTAL is set; name the share as --shard I/N");
}

}  // namespace

Shard parse_shard(const std::string& text) {
  if (text == "auto") return of_environment();
  if (const auto shard = pair(text, "/")) return *shard;
  throw UsageError(fmt::format("--shard: expected I/N with 1 <= I <= N, or auto, found '{}'", text));
}

std::string in_words(const Shard& shard) { return fmt::format("{} of {}", shard.index, shard.of); }

Shard shard_of_words(const std::string& words, const std::string& source) {
  if (const auto shard = pair(words, " of ")) return *shard;
  throw InputError(fmt::format("{}: expected a shard as \"2 of 3\", found \"{}\"", source, words));
}

}  // namespace assay::cli
