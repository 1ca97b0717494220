#include "reports/history.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <fmt/format.h>

#include "reports/columns.h"
#include "reports/text_paint.h"
#include "reports/wording.h"

namespace assay {
namespace {

constexpr std::size_t kMostRuns = 6;
constexpr std::size_t kMinutes = 16;  // of "2026-11-30T06:34:46Z"

const CaseResult* same_case(const Report& report, const CaseResult& wanted) {
  const auto found = std::ranges::find_if(report.cases, [&](const CaseResult& c) {
    return c.problem == wanted.problem && c.candidate == wanted.candidate;
  });
  return found == report.cases.end() ? nullptr : &*found;
}

FieldHistory field_history(Field field, const std::vector<const CaseResult*>& runs) {
  FieldHistory history{field};
  for (const CaseResult* run : runs) {
    const auto found = std::ranges::find(run->fields, field, &FieldResult::field);
    const bool there = found != run->fields.end() && compared(found->verdict);
    history.verdicts.push_back(there ? std::optional(found->verdict) : std::nullopt);
    history.worst.push_back(there && has_ratio(field)
                                ? std::max(found->isolated.max_ratio, found->chained.max_ratio)
                                : std::numeric_limits<double>::quiet_NaN());
    history.wrong.push_back(there ? std::max(found->isolated.rejected, found->chained.rejected) : 0);
  }
  return history;
}

std::vector<std::optional<Verdict>> verdicts_of(const CaseHistory& one) {
  std::vector<std::optional<Verdict>> all;
  for (const CaseResult* run : one.runs) all.push_back(run->verdict);
  return all;
}

std::string signed_cell(std::optional<Verdict> verdict, const std::string& text, bool colour) {
  if (!verdict) return "-";
  return painted(fmt::format("{} {}", sign(mark(*verdict)), text), mark(*verdict), colour);
}

std::string case_text(const CaseHistory& one, const TextOptions& options) {
  const auto shown = runs_shown(one.runs.size());
  const CaseResult& now = *one.runs.back();
  std::string out = fmt::format(
      "{}, {}: {} reports{}\n\n", printable(now.problem), printable(now.candidate), one.runs.size(),
      shown.size() < one.runs.size() ? fmt::format(", the first and the last {} shown", shown.size() - 1)
                                     : "");
  Columns table{{Align::Left}, {{"field"}}};
  const auto add_row = [&](std::string_view head, auto&& cell) {
    table.rows.push_back({std::string(head)});
    for (const std::size_t run : shown) table.rows.back().push_back(cell(run));
  };
  for (const std::size_t run : shown) {
    table.aligns.push_back(Align::Left);
    table.rows.front().push_back(printable(one.created[run].substr(0, kMinutes)));
  }
  for (const FieldHistory& field : one.fields)
    add_row(name(field.field), [&](std::size_t run) {
      return signed_cell(field.verdicts[run], history_cell(field, run), options.colour);
    });
  add_row("the case", [&](std::size_t run) {
    return signed_cell(one.runs[run]->verdict, std::string(words(one.runs[run]->verdict)), options.colour);
  });
  add_row("verified in", [&](std::size_t run) { return seconds_text(one.runs[run]->seconds); });
  out += table.text(2);
  const auto width = static_cast<std::size_t>(options.width);
  for (const std::string& change : verdict_changes(verdicts_of(one), one.created))
    out += wrapped(printable(change), "  the case: ", width);
  for (const FieldHistory& field : one.fields)
    for (const std::string& change : verdict_changes(field.verdicts, one.created))
      out += wrapped(printable(change), fmt::format("  {}: ", name(field.field)), width);
  return out + "\n";
}

}  // namespace

std::vector<CaseHistory> case_histories(const Report& report, std::span<const Report> earlier) {
  std::vector<CaseHistory> all;
  for (std::size_t i = 0; i < report.cases.size(); ++i) {
    CaseHistory one{i};
    for (const Report& before : earlier)
      if (const CaseResult* found = same_case(before, report.cases[i])) {
        one.runs.push_back(found);
        one.created.push_back(before.created);
      }
    if (one.runs.empty()) continue;
    one.runs.push_back(&report.cases[i]);
    one.created.push_back(report.created);
    for (const FieldRow& field : kFields) {
      FieldHistory history = field_history(field.id, one.runs);
      if (std::ranges::any_of(history.verdicts, [](const auto& v) { return v.has_value(); }))
        one.fields.push_back(std::move(history));
    }
    all.push_back(std::move(one));
  }
  return all;
}

std::vector<std::string> verdict_changes(const std::vector<std::optional<Verdict>>& verdicts,
                                         const std::vector<std::string>& created) {
  const auto said = [](std::optional<Verdict> verdict) {
    return std::string(verdict ? words(*verdict) : words(Verdict::NotMaterialised));
  };
  std::vector<std::string> changes;
  for (std::size_t run = verdicts.size(); run-- > 1;)
    if (verdicts[run] != verdicts[run - 1])
      changes.push_back(
          fmt::format("{} since {}, {} before", said(verdicts[run]), created[run], said(verdicts[run - 1])));
  return changes;
}

std::string history_cell(const FieldHistory& field, std::size_t run) {
  if (!field.verdicts[run]) return "-";
  if (has_ratio(field.field)) return ratio_text(field.worst[run]);
  return field.wrong[run] > 0 ? fmt::format("{} wrong", grouped_digits(field.wrong[run])) : "exact";
}

std::vector<std::size_t> runs_shown(std::size_t count) {
  std::vector<std::size_t> all(std::min(count, kMostRuns));
  std::iota(all.begin(), all.end(), count - all.size());
  if (!all.empty()) all.front() = 0;
  return all;
}

std::string render_history_text(const Report& report, std::span<const Report> earlier,
                                const TextOptions& options) {
  std::string out;
  for (const CaseHistory& one : case_histories(report, earlier)) out += case_text(one, options);
  return out.empty() ? "" : "History, largest error of what is allowed; 1 is the limit\n\n" + out;
}

}  // namespace assay
