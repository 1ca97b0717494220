#include <fmt/format.h>
#include <fmt/ranges.h>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "harness/contract/counted_words.h"
#include "harness/contract/digits.h"
#include "harness/contract/stored.h"
#include "harness/judge/regress.h"

namespace assay {
namespace {

/// How two tensors of one shape and dtype differ, element by element.
struct Difference {
  std::int64_t changed = 0;
  std::int64_t first = -1;        // flat index
  std::int64_t largest_ulps = 0;  // neighbours, over elements finite on both sides
  std::int64_t newly_non_finite = 0;
};

Difference difference(const Tensor& before, const Tensor& now) {
  Difference found;
  const std::size_t size = row(now.dtype()).size;
  const bool rounded = now.dtype() == DType::BFloat16 || now.dtype() == DType::Float32;
  const bool f64 = now.dtype() == DType::Float64;
  for (std::int64_t i = 0; i < now.size(); ++i) {
    const std::size_t at = static_cast<std::size_t>(i) * size;
    if (std::memcmp(before.bytes().data() + at, now.bytes().data() + at, size) == 0) continue;
    if (found.changed++ == 0) found.first = i;
    const auto element = static_cast<std::size_t>(i);
    if (f64)
      found.newly_non_finite +=
          std::isfinite(before.as<double>()[element]) && !std::isfinite(now.as<double>()[element]);
    if (!rounded) continue;
    const Stored a = StoredSpan(before, before.dtype())[element];
    const Stored b = StoredSpan(now, now.dtype())[element];
    if (a.finite() && b.finite())
      found.largest_ulps = std::max(found.largest_ulps, std::abs(a.ordinal() - b.ordinal()));
    found.newly_non_finite += a.finite() && !b.finite();
  }
  return found;
}

/// "row 17, col 3" of a flat index, with the axis names of the field table.
std::string place(Field field, const Shape& shape, std::int64_t flat) {
  std::string text;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    // A file may keep [B, L, H] where the table has [T, H]: such an axis has no name of its own.
    const bool named = axis < row(field).shape.size() && row(field).shape[axis] != Dim::None;
    const std::string name = named ? std::string(axis_name(field, axis)) : fmt::format("axis {}", axis);
    text = fmt::format("{} {}{}{}", name, flat % shape[axis], text.empty() ? "" : ", ", text);
    flat /= shape[axis];
  }
  return text;
}

Finding about(Field field, Severity severity, std::string sentence) {
  Finding finding{severity, std::move(sentence)};
  finding.field = field;
  return finding;
}

Finding changed(Field field, const Tensor& now, const Difference& found) {
  const double percent = 100.0 * static_cast<double>(found.changed) / static_cast<double>(now.size());
  std::string sentence = fmt::format("{}: {} of {} elements changed ({:.3g} %), first at {}", name(field),
                                     grouped_digits(found.changed), grouped_digits(now.size()), percent,
                                     place(field, now.shape(), found.first));
  if (found.largest_ulps > 0)
    sentence += fmt::format(", by at most {} ulp{}", grouped_digits(found.largest_ulps),
                            found.largest_ulps == 1 ? "" : "s");
  Finding finding = about(field, Severity::Legal, std::move(sentence));
  finding.figures = {{"changed elements", 0.0, static_cast<double>(found.changed)},
                     {"changed by ulps", 0.0, static_cast<double>(found.largest_ulps)}};
  if (found.newly_non_finite > 0) {
    finding.severity = Severity::Regression;
    finding.sentence += fmt::format("; {} newly not finite", grouped_digits(found.newly_non_finite));
    finding.figures.push_back({"newly not finite", 0.0, static_cast<double>(found.newly_non_finite)});
  } else if (row(field).match == Match::Given) {
    finding.severity = Severity::Regression;
    finding.sentence += ": the two runs had different inputs";
    finding.incomparable = true;
  }
  return finding;
}

}  // namespace

std::vector<Finding> regress(const FieldSet& baseline, const FieldSet& candidate) {
  std::vector<Finding> findings;
  std::vector<Field> same;
  std::int64_t elements = 0;
  for (const FieldRow& field : kFields) {
    const bool before = baseline.has(field.id);
    const bool now = candidate.has(field.id);
    if (before && !now)
      findings.push_back(
          about(field.id, Severity::Regression, fmt::format("{} is no longer written", field.name)));
    if (!before && now)
      findings.push_back(about(field.id, Severity::Legal, fmt::format("{} is newly written", field.name)));
    if (!before || !now) continue;
    const Tensor& a = baseline.at(field.id);
    const Tensor& b = candidate.at(field.id);
    if (a.dtype() != b.dtype()) {
      findings.push_back(about(
          field.id, Severity::Regression,
          fmt::format("{}: dtype {}, {} before", field.name, row(b.dtype()).name, row(a.dtype()).name)));
    } else if (a.shape() != b.shape()) {
      findings.push_back(about(
          field.id, Severity::Regression,
          fmt::format("{}: shape {}, {} before", field.name, to_string(b.shape()), to_string(a.shape()))));
    } else if (const Difference found = difference(a, b); found.changed > 0) {
      findings.push_back(changed(field.id, b, found));
    } else {
      same.push_back(field.id);
      elements += b.size();
    }
  }
  if (!same.empty()) {
    std::string names;
    for (const Field field : same) names += fmt::format("{}{}", names.empty() ? "" : ", ", name(field));
    findings.push_back(
        {Severity::Same,
         fmt::format("{} with {} {} bit for bit the same: {}", counted(std::ssize(same), "field"),
                     counted(elements, "element"), same.size() == 1 ? "is" : "are", names)});
  }
  if (findings.empty())
    findings.push_back({Severity::Regression, "nothing was compared: no field is on either side"});
  return findings;
}

std::vector<Finding> regress(const std::vector<HeldField>& baseline,
                             const std::vector<HeldField>& candidate) {
  std::vector<Finding> findings;
  const auto find = [](const std::vector<HeldField>& all, Field field) {
    return std::ranges::find(all, field, &HeldField::field);
  };
  for (const HeldField& before : baseline) {
    const auto add = [&](Severity severity, std::string sentence) {
      findings.push_back(about(before.field, severity, fmt::format("{}{}", name(before.field), sentence)));
    };
    const auto now = find(candidate, before.field);
    if (now == candidate.end()) {
      add(Severity::Regression, " is no longer written");
      continue;
    }
    if (now->shape != before.shape || now->dtype != before.dtype ||
        now->sha256.size() != before.sha256.size()) {
      add(Severity::Regression,
          fmt::format(": hashes of {} {}, of {} {} before", row(now->dtype).name, to_string(now->shape),
                      row(before.dtype).name, to_string(before.shape)));
      continue;
    }
    std::vector<std::size_t> changed;
    for (std::size_t part = 0; part < before.sha256.size(); ++part)
      if (now->sha256[part] != before.sha256[part]) changed.push_back(part);
    constexpr std::size_t kNamed = 8;
    const std::size_t named = std::min(changed.size(), kNamed);
    if (changed.empty())
      add(Severity::Same, " is the same by its hashes");
    else if (!is_hashed_by_expert(before.field))
      add(Severity::Legal, " changed: it has another hash");
    else
      add(Severity::Legal,
          fmt::format(": {} of {} experts changed, by their hashes: {}{}", changed.size(),
                      before.sha256.size(),
                      fmt::join(changed.begin(), changed.begin() + static_cast<std::ptrdiff_t>(named), ", "),
                      changed.size() > named ? ", ..." : ""));
    if (!changed.empty())
      findings.back().figures = {{"changed hashes", 0.0, static_cast<double>(changed.size())}};
  }
  for (const HeldField& now : candidate)
    if (find(baseline, now.field) == baseline.end())
      findings.push_back(
          about(now.field, Severity::Legal, fmt::format("{} is newly written", name(now.field))));
  return findings;
}

}  // namespace assay
