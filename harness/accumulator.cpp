#include "harness/accumulator.h"

#include <charconv>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/error.h"

namespace assay {
namespace {

struct KindRow {
  AccumulatorKind kind;
  std::string_view name;
};
constexpr KindRow kKinds[] = {
    {AccumulatorKind::Unknown, "unknown"},
    {AccumulatorKind::Fp32Sequential, "fp32_sequential"},
    {AccumulatorKind::Fp32Pairwise, "fp32_pairwise"},
    {AccumulatorKind::Hopper, "hopper"},
    {AccumulatorKind::HopperAnySplit, "hopper_any_split"},
};
constexpr std::string_view kSplitName = "hopper_split(";

}  // namespace

std::string to_string(const Accumulator& accumulator) {
  if (!accumulator.splits.empty()) return fmt::format("{}{})", kSplitName, fmt::join(accumulator.splits, ", "));
  return std::string(kKinds[static_cast<std::size_t>(accumulator.kind)].name);
}

Accumulator parse_accumulator(std::string_view text) {
  for (const auto& [kind, name] : kKinds)
    if (text == name) return {kind, {}};
  if (text.starts_with(kSplitName) && text.ends_with(')')) {
    Accumulator result{AccumulatorKind::Hopper, {}};
    const char* at = text.data() + kSplitName.size();
    const char* end = text.data() + text.size() - 1;
    while (at != end) {
      std::int64_t length = 0;
      const auto [next, error] = std::from_chars(at, end, length);
      if (error != std::errc() || length < 1) break;
      result.splits.push_back(length);
      at = next;
      while (at != end && (*at == ',' || *at == ' ')) ++at;
    }
    if (at == end && !result.splits.empty()) return result;
  }
  throw UsageError(fmt::format(
      "unknown accumulator '{}'; valid: unknown, fp32_sequential, fp32_pairwise, hopper, hopper_any_split, "
      "hopper_split(k1, k2, ...)", text));
}

}  // namespace assay
