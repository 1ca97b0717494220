#include "harness/judge/vacuity.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace assay {
namespace {

constexpr std::string_view kByInterval = "interval";

struct Copy {
  std::string_view name;
  double (*value)(std::span<const Interval> reference, std::size_t index,
                  std::size_t width);  // not yet rounded
};

// clang-format off
constexpr Copy kCopies[] = {
    {"zeros",                  [](std::span<const Interval>, std::size_t, std::size_t) { return 0.0; }},
    {"rows rotated by one",    [](std::span<const Interval> ref, std::size_t i, std::size_t width) { return ref[(i + width) % ref.size()].ref; }},
    {"half-scaled",            [](std::span<const Interval> ref, std::size_t i, std::size_t) { return 0.5 * ref[i].ref; }},
    {"columns shifted by one", [](std::span<const Interval> ref, std::size_t i, std::size_t width) { return ref[i - i % width + (i + 1) % width].ref; }},
};
// clang-format on

struct IntegerCopy {
  std::string name;
  std::vector<std::int32_t> values;
};

VacuityCheck check_of(std::string_view copy, VacuityOutcome outcome, std::string_view reason) {
  return {std::string(copy), outcome, std::string(reason), false};
}

/// How much a check says, at most kMost: no rows can make up for what some rows reject.
constexpr int kMost = 3;
int weight(const VacuityCheck& check) {
  if (check.outcome == VacuityOutcome::Rejected) return check.reason == kByInterval ? kMost : 2;
  return check.outcome == VacuityOutcome::WouldPass ? 1 : 0;
}

VacuityCheck shown(const Copy& copy, DType dtype, std::span<const Interval> reference,
                   const BindingBits& binding, std::size_t width) {
  bool same = true;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const Stored value = stored_as(dtype, copy.value(reference, i, width));
    if (!accepts(value, reference[i])) return check_of(copy.name, VacuityOutcome::Rejected, kByInterval);
    // An accepted NaN stands where NaN is due, whatever its sign and payload.
    same =
        same && (std::isnan(value.value) || value.ordinal() == stored_as(dtype, reference[i].ref).ordinal());
  }
  if (same) return check_of(copy.name, VacuityOutcome::NotApplicable, "equals the reference");
  const auto predicted = binding ? binding() : std::span<const PredictedBits>();
  for (std::size_t i = 0; i < predicted.size(); ++i)
    if (!predicted[i].undetermined &&
        stored_as(dtype, copy.value(reference, i, width)).bits() != predicted[i].bits)
      return check_of(copy.name, VacuityOutcome::Rejected, "predicted bits");
  return check_of(copy.name, VacuityOutcome::WouldPass, "every element of it is accepted");
}

}  // namespace

std::vector<VacuityCheck> vacuity_of_rounded(const CompareContext& context,
                                             std::span<const Interval> reference,
                                             const BindingBits& predicted) {
  std::vector<VacuityCheck> checks;
  add_vacuity_of_rounded(context, reference, predicted, checks);
  return checks;
}

void add_vacuity_of_rounded(const CompareContext& context, const StretchIntervals& reference,
                            const BindingBits& predicted, std::vector<VacuityCheck>& checks) {
  if (reference.size() == 0) return;
  const auto width = static_cast<std::size_t>(width_of(context.field, context.sizes));
  const bool first = checks.empty();
  for (std::size_t i = 0; i < std::size(kCopies); ++i) {
    if (first)
      checks.push_back(shown(kCopies[i], context.dtype, reference.all(), predicted, width));
    else if (weight(checks[i]) == kMost)
      continue;
    else if (VacuityCheck further = shown(kCopies[i], context.dtype, reference.all(), predicted, width);
             weight(further) > weight(checks[i]))
      checks[i] = std::move(further);
  }
}

std::vector<VacuityCheck> vacuity_of_integers(const CompareContext& context,
                                              std::span<const std::int32_t> expected) {
  std::vector<VacuityCheck> checks;
  if (expected.empty()) return checks;
  IntegerCopy zeros{"zeros", std::vector<std::int32_t>(expected.size(), 0)};
  IntegerCopy rotated{"rotated by one", {expected.begin(), expected.end()}};
  std::ranges::rotate(rotated.values, rotated.values.begin() + 1);
  for (const auto& [name, values] : {zeros, rotated}) {
    const bool same = std::ranges::equal(values, expected);
    if (compare_exact(context, values, expected).rejected > 0)
      checks.push_back(check_of(name, VacuityOutcome::Rejected, "exact match"));
    else if (same)
      checks.push_back(check_of(name, VacuityOutcome::NotApplicable, "equals the reference"));
    else
      checks.push_back(check_of(name, VacuityOutcome::WouldPass, "every element of it is accepted"));
  }
  return checks;
}

std::vector<VacuityCheck> vacuity_of_selection(const MoeConfig& config, const PrecisionContract& contract,
                                               const LogitModel& logits,
                                               std::span<const std::int32_t> right) {
  std::vector<VacuityCheck> checks;
  if (right.empty()) return checks;
  const std::vector<std::int32_t> same(right.begin(), right.end());
  IntegerCopy zeros{"zeros", std::vector<std::int32_t>(right.size(), 0)};
  IntegerCopy rotated{"tokens rotated by one", same};
  IntegerCopy shifted{"experts shifted by one", same};
  std::ranges::rotate(rotated.values, rotated.values.begin() + static_cast<std::ptrdiff_t>(config.top_k));
  for (auto& expert : shifted.values) expert = static_cast<std::int32_t>((expert + 1) % config.num_experts);
  const LogitModel alone = values_alone(logits);
  for (const auto& [name, values] : {zeros, rotated, shifted}) {
    const auto rejected = [&](const LogitModel& model) {
      return check_selection(config, contract, model, values).judgement.rejected > 0;
    };
    if (values == same)
      checks.push_back(check_of(name, VacuityOutcome::NotApplicable, "equals the reference"));
    else if (rejected(logits))
      checks.push_back(check_of(name, VacuityOutcome::Rejected, "selection test"));
    else if (!rejected(alone))
      checks.push_back(check_of(name, VacuityOutcome::NotApplicable, "a legal choice too"));
    else
      checks.push_back(check_of(name, VacuityOutcome::WouldPass, "every token of it is accepted"));
  }
  return checks;
}

std::string in_words(const std::vector<VacuityCheck>& checks) {
  std::string names;
  int count = 0;
  for (const auto& check : checks) {
    if (check.chained || check.outcome != VacuityOutcome::WouldPass) continue;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", check.copy);
    ++count;
  }
  if (count == 0) return "";
  return fmt::format("{} of the reference ({}) would have passed this very check",
                     count == 1 ? "a wrong copy" : "wrong copies", names);
}

}  // namespace assay
