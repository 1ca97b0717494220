#include "harness/contract/accumulator.h"

#include <charconv>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/error.h"

namespace assay {
namespace {

struct FormRow {
  AccumulatorKind kind;
  std::string_view name;
  std::string_view arguments;  // empty, or the numbers that follow in parentheses
};
// clang-format off
constexpr FormRow kForms[] = {
    {AccumulatorKind::Unknown,           "unknown",            ""},
    {AccumulatorKind::Fp32Sequential,    "fp32_sequential",    ""},
    {AccumulatorKind::Fp32Pairwise,      "fp32_pairwise",      ""},
    {AccumulatorKind::Hopper,            "hopper",             ""},
    {AccumulatorKind::HopperAnySplit,    "hopper_any_split",   ""},
    {AccumulatorKind::Hopper,            "hopper_split",       "(k1, k2, ...)"},
    {AccumulatorKind::HopperDescending,  "hopper_descending",  "(block)"},
    {AccumulatorKind::HopperInterleaved, "hopper_interleaved", "(parts, block)"},
    {AccumulatorKind::Ampere,            "ampere",             ""},
};
// clang-format on

std::vector<std::int64_t> arguments_of(const Accumulator& accumulator) {
  if (accumulator.kind == AccumulatorKind::HopperDescending) return {accumulator.block};
  if (accumulator.kind == AccumulatorKind::HopperInterleaved) return {accumulator.parts, accumulator.block};
  return accumulator.splits;
}

/// No layer has a longer sum, and what walks over a declared number ends soon.
constexpr std::int64_t kLargestNumber = std::int64_t{1} << 20;
constexpr std::size_t kMostNumbers = 4096;

/// "(1, 2)" as positive numbers; nothing if it is not of that form.
std::optional<std::vector<std::int64_t>> parse_numbers(std::string_view text) {
  if (!text.starts_with('(') || !text.ends_with(')')) return std::nullopt;
  std::vector<std::int64_t> numbers;
  const char* at = text.data() + 1;
  const char* end = text.data() + text.size() - 1;
  while (at != end) {
    std::int64_t number = 0;
    const auto [next, error] = std::from_chars(at, end, number);
    if (error != std::errc() || number < 1 || number > kLargestNumber || numbers.size() == kMostNumbers)
      return std::nullopt;
    numbers.push_back(number);
    at = next;
    while (at != end && (*at == ',' || *at == ' ')) ++at;
  }
  return numbers;
}

std::optional<Accumulator> from_numbers(AccumulatorKind kind, const std::vector<std::int64_t>& numbers) {
  if (kind == AccumulatorKind::Hopper && !numbers.empty()) return Accumulator{kind, numbers};
  if (kind == AccumulatorKind::HopperDescending && numbers.size() == 1)
    return Accumulator{kind, {}, numbers[0]};
  if (kind == AccumulatorKind::HopperInterleaved && numbers.size() == 2)
    return Accumulator{kind, {}, numbers[1], numbers[0]};
  return std::nullopt;
}

}  // namespace

Accumulators every_product(const Accumulator& accumulator, bool rest_as_torch) {
  Accumulators all;
  all.of.fill(accumulator);
  all.rest_as_torch = rest_as_torch;
  return all;
}

Accumulators assumed_where_unknown(const Accumulators& declared) {
  Accumulators assumed = declared;
  for (Accumulator& one : assumed.of)
    if (one.kind == AccumulatorKind::Unknown) one = {AccumulatorKind::HopperAnySplit, {}};
  return assumed;
}

std::string to_string(const Accumulator& accumulator) {
  const auto arguments = arguments_of(accumulator);
  for (const auto& form : kForms)
    if (form.kind == accumulator.kind && form.arguments.empty() == arguments.empty())
      return arguments.empty() ? std::string(form.name)
                               : fmt::format("{}({})", form.name, fmt::join(arguments, ", "));
  return "unknown";
}

Accumulator parse_accumulator(std::string_view text) {
  const auto name = text.substr(0, text.find('('));
  for (const auto& form : kForms) {
    if (form.name != name) continue;
    if (form.arguments.empty() && name == text) return {form.kind, {}};
    const auto numbers = parse_numbers(text.substr(name.size()));
    if (form.arguments.empty() || !numbers) continue;
    if (const auto found = from_numbers(form.kind, *numbers)) return *found;
  }
  for (const auto& form : kForms)
    if (form.name == name && !form.arguments.empty())
      throw UsageError(fmt::format("accumulator '{}': expected {}{} with numbers from 1 to {}", text,
                                   form.name, form.arguments, kLargestNumber));
  throw UsageError(fmt::format("unknown accumulator '{}'; valid: {}", text, accumulator_forms()));
}

std::string accumulator_forms() {
  std::string forms;
  for (const auto& form : kForms)
    forms += fmt::format("{}{}{}", forms.empty() ? "" : ", ", form.name, form.arguments);
  return forms;
}

}  // namespace assay
