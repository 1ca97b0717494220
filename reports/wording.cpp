#include "reports/wording.h"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>

#include "harness/contract/field_set.h"
#include "harness/contract/stored.h"

namespace assay {

Mark mark(Verdict verdict) {
  switch (verdict) {
    case Verdict::Passed: return Mark::Good;
    case Verdict::Mistrusted:
    case Verdict::Suspect:
    case Verdict::Unstable:
    case Verdict::NotJudged:
    case Verdict::MissingGolden: return Mark::Doubt;
    case Verdict::NotMaterialised:
    case Verdict::Unsupported: return Mark::Absent;
    default: return Mark::Bad;
  }
}

std::string_view sign(Mark mark) {
  constexpr std::string_view signs[] = {"✔", "✘", "~", "-"};
  return signs[static_cast<std::size_t>(mark)];
}

std::string_view words(Verdict verdict) {
  constexpr std::string_view all[] = {"not written", "unsupported", "passed",     "mistrusted", "suspect",
                                      "unstable",    "NOT JUDGED",  "NOT JUDGED", "FAILED",     "NON-FINITE",
                                      "WRONG DTYPE", "WRONG SHAPE", "TIMED OUT",  "CRASHED"};
  static_assert(std::size(all) == static_cast<std::size_t>(kWorstVerdict) + 1);
  return all[static_cast<std::size_t>(verdict)];
}

bool not_asked(const FieldResult& result) {
  return result.verdict == Verdict::NotMaterialised && !result.notes.empty() &&
         result.notes.front().starts_with("not asked");
}

std::string_view words(const FieldResult& result) {
  return not_asked(result) ? "not asked" : words(result.verdict);
}

bool inherited(const CaseResult& result, const FieldResult& field) {
  return result.first_own_error && field.isolated.elements > 0 &&
         (field.isolated.verdict <= Verdict::Passed || field.isolated.verdict == Verdict::NotJudged) &&
         !(field.isolated_bits.binding && field.isolated_bits.differing > 0) &&
         (failed(field.chained.verdict) || field.chained.verdict == Verdict::Suspect ||
          (field.chained_bits.binding && field.chained_bits.differing > 0));
}

std::string ratio_text(double ratio) {
  if (std::isnan(ratio)) return "nan";
  if (std::isinf(ratio)) return "inf";
  if (ratio == 0) return "0";
  if (ratio < 0.001) return "<0.001";
  if (ratio < 10) return fmt::format("{:.3f}", ratio);
  if (ratio < 100) return fmt::format("{:.2f}", ratio);
  if (ratio < 1000) return fmt::format("{:.1f}", ratio);
  if (ratio < 1e6) return grouped_digits(std::llround(ratio));
  return fmt::format("{:.1e}", ratio);
}

std::string value_text(double value) { return fmt::format("{}", value); }

std::string bits_text(DType dtype, std::uint32_t bits) {
  return fmt::format("0x{:0{}x}", bits, dtype == DType::BFloat16 ? 4 : 8);
}

DType dtype_of(const FieldResult& result) {
  return row(result.field).dtype == DType::Int32 ? DType::Int32 : result.dtype;
}

bool shows_bits(DType dtype, const Element& element) {
  if (dtype != DType::BFloat16 && dtype != DType::Float32) return false;
  const double stored = with_bits(dtype, element.out_bits).value;
  return stored == element.out || (std::isnan(stored) && std::isnan(element.out));
}

std::string place_text(const Element& element) { return place_text(element.at); }

std::string place_text(const std::vector<std::pair<std::string, std::int64_t>>& at) {
  std::string text;
  for (const auto& [axis, index] : at) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", axis, index);
  return text;
}

std::string seconds_text(double seconds) {
  if (seconds < 1) return fmt::format("{:.1f} ms", seconds * 1e3);
  if (seconds < 100) return fmt::format("{:.1f} s", seconds);
  const auto whole = std::llround(seconds);
  return fmt::format("{} min {:02} s", whole / 60, whole % 60);
}

std::string bytes_text(std::int64_t bytes) {
  if (bytes < std::int64_t{1} << 20) return fmt::format("{} KiB", bytes >> 10);
  if (bytes < std::int64_t{1} << 30) return fmt::format("{} MiB", bytes >> 20);
  return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / 0x1p30);
}

std::string prediction_text(const Prediction& prediction) {
  if (!prediction.available) return "not predicted";
  std::string text = grouped_digits(prediction.as_predicted) + " of " + grouped_digits(prediction.elements);
  std::string rest;
  if (prediction.differing > 0) rest = grouped_digits(prediction.differing) + " differ";
  if (prediction.undetermined > 0)
    rest += (rest.empty() ? "" : ", ") + grouped_digits(prediction.undetermined) + " undetermined";
  return rest.empty() ? text : text + " (" + rest + ")";
}

Mark mark(const VacuityCheck& check) {
  if (check.outcome == VacuityOutcome::Rejected) return Mark::Good;
  const bool passes = check.outcome == VacuityOutcome::WouldPass;
  return passes && !check.chained ? Mark::Doubt : Mark::Absent;
}

std::string_view part_of_result(Field field) {
  if (in_grouped_gemm_result(field)) return "GroupedGEMMResult";
  return row(field).group == Group::Backward ? "gradients" : "router";
}

bool has_ratio(Field field) { return row(field).match == Match::Rounded; }

std::int64_t elements(const FieldResult& result) {
  return std::max(result.isolated.elements, result.chained.elements);
}

namespace {

void add(Prediction& sum, const Prediction& part) {
  if (!part.available) return;
  sum.available = true;
  sum.binding = sum.binding || part.binding;
  sum.elements += part.elements;
  sum.as_predicted += part.as_predicted;
  sum.undetermined += part.undetermined;
  sum.differing += part.differing;
}

// NaN ratios must not vanish behind a comparison that is false.
double larger(double a, double b) { return std::isnan(a) || a > b ? a : b; }

}  // namespace

Totals totals(const CaseResult& result) {
  Totals sum;
  for (const FieldResult& field : result.fields) {
    ++(compared(field.verdict) ? sum.fields : sum.absent);
    sum.elements += elements(field);
    for (const Judgement* judgement : {&field.isolated, &field.chained})
      if (has_ratio(field.field) &&
          (mark(judgement->verdict) == Mark::Good || mark(field.verdict) != Mark::Good))
        sum.max_ratio = larger(judgement->max_ratio, sum.max_ratio);
    add(sum.isolated_bits, field.isolated_bits);
    add(sum.chained_bits, field.chained_bits);
  }
  return sum;
}

Totals totals(const Report& report) {
  Totals sum;
  for (const CaseResult& one : report.cases) {
    const Totals part = totals(one);
    sum.fields += part.fields;
    sum.absent += part.absent;
    sum.elements += part.elements;
    sum.max_ratio = larger(part.max_ratio, sum.max_ratio);
    add(sum.isolated_bits, part.isolated_bits);
    add(sum.chained_bits, part.chained_bits);
  }
  return sum;
}

std::string case_counts_text(const Report& report) {
  const auto total = static_cast<std::int64_t>(report.cases.size());
  std::string text = fmt::format("{} case{}", grouped_digits(total), total == 1 ? "" : "s");
  std::string_view separator = ": ";
  for (int i = static_cast<int>(kWorstVerdict); i >= 0; --i) {
    const auto verdict = static_cast<Verdict>(i);
    const auto said_so = [&](const CaseResult& one) { return words(one.verdict) == words(verdict); };
    const auto count = std::ranges::count_if(report.cases, said_so);
    // Verdicts with the same words follow each other: the first of them counts for all.
    const bool again = verdict != kWorstVerdict && words(static_cast<Verdict>(i + 1)) == words(verdict);
    if (count == 0 || again) continue;
    text += fmt::format("{}{} {}", separator, grouped_digits(count), words(verdict));
    separator = ", ";
  }
  return text;
}

}  // namespace assay
