#include "reports/markdown.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "reports/wording.h"

namespace assay {
namespace {

/// Text of others inside a table's cell: nothing of it is markup, and it stays in its cell.
std::string cell(std::string_view text) {
  std::string out;
  for (const char c : printable(text)) {
    if (c == '<')
      out += "&lt;";
    else if (c == '&')
      out += "&amp;";
    else if (std::string_view("\\`*_|[]>#@~!").find(c) != std::string_view::npos)
      out += fmt::format("\\{}", c);
    else
      out += c;
  }
  return out;
}

/// The same as code: the quote that ends code is left out.
std::string code(std::string_view text) {
  std::string out = printable(text);
  std::erase(out, '`');
  return fmt::format("`{}`", out);
}

std::string case_row(const CaseResult& one) {
  return fmt::format("| {} {} | {} | {} | {} |\n", sign(mark(one.verdict)), words(one.verdict),
                     cell(one.problem), cell(one.candidate), cell(one.headline));
}

constexpr std::string_view kCaseHead = "| verdict | problem | candidate | |\n|---|---|---|---|\n";

std::string folded(std::string_view what, const std::string& text) {
  return fmt::format("\n<details><summary>{}</summary>\n\n{}\n</details>\n", what, text);
}

std::string fields(const CaseResult& one) {
  std::string out = "| | field | elements | isolated | chained |\n|---|---|--:|--:|--:|\n";
  const auto worst_of = [](const FieldResult& field, const Judgement& judgement) {
    if (!compared(judgement.verdict)) return std::string("-");
    return fmt::format("{} {}", has_ratio(field.field) ? ratio_text(judgement.max_ratio) : "exact",
                       sign(mark(judgement.verdict)));
  };
  for (const FieldResult& field : one.fields)
    if (compared(field.verdict))
      out += fmt::format("| {} | {} | {} | {} | {} |\n", sign(mark(field.verdict)), cell(name(field.field)),
                         grouped_digits(elements(field)), worst_of(field, field.isolated),
                         worst_of(field, field.chained));
  if (!one.replay.empty()) out += fmt::format("\nreplay: {}\n", code(one.replay));
  return out;
}

}  // namespace

std::string render_markdown(const Report& report) {
  std::string out = fmt::format("### {} assay: {}\n", sign(mark(report.verdict())), case_counts_text(report));
  std::string good;
  std::string others;
  std::string details;
  for (const CaseResult& one : report.cases) {
    const bool passed = mark(one.verdict) == Mark::Good;
    (passed ? good : others) += case_row(one);
    if (!passed && !one.fields.empty())
      details += folded(fmt::format("{} {}", code(one.problem), code(one.candidate)), fields(one));
  }
  if (!others.empty()) out += fmt::format("\n{}{}{}", kCaseHead, others, details);
  if (!good.empty()) out += folded("passed", std::string(kCaseHead) + good);
  return out + fmt::format("\n{}\n", code(report.command));
}

std::string render_markdown(std::span<const Finding> findings) {
  constexpr std::string_view signs[] = {"=", "✔", "~", "✘"};
  constexpr std::string_view what[] = {"same", "approved", "legal change", "regression"};
  std::vector<const Finding*> sorted;
  for (const Finding& one : findings) sorted.push_back(&one);
  std::ranges::stable_sort(sorted,
                           [](const Finding* a, const Finding* b) { return a->severity > b->severity; });
  const auto worst = sorted.empty() ? 0 : static_cast<std::size_t>(sorted.front()->severity);
  std::string out = fmt::format("### {} assay regress: {}\n", signs[worst], what[worst]);
  std::string changed;
  std::string same;
  for (const Finding* one : sorted) {
    const auto severity = static_cast<std::size_t>(one->severity);
    (one->severity == Severity::Same ? same : changed) +=
        fmt::format("- {} {}: {}\n", signs[severity], what[severity], cell(one->sentence));
  }
  if (!changed.empty()) out += fmt::format("\n{}", changed);
  if (!same.empty()) out += folded("what is the same", same);
  return out;
}

}  // namespace assay
