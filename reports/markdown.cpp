#include "reports/markdown.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "reports/parting_report.h"
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

/// What one document may hold. GitHub takes no comment above 65,536 characters, and the examples of CI put
/// two documents in one: a run's, and what changed since another. The rest is for heads, signs and commands.
constexpr std::size_t kRoom = 30000;

/// The pieces of a document that have room, in order. What has none is counted.
class Fitting {
 public:
  std::string of(const std::vector<std::string>& pieces, std::string_view what) {
    std::string out;
    std::size_t left = 0;
    for (const std::string& piece : pieces) {
      if (left > 0 || piece.size() > room_) {
        ++left;
        continue;
      }
      room_ -= piece.size();
      out += piece;
    }
    if (left > 0) out += fmt::format("\nand {} {} more, in the report\n", grouped_digits(left), what);
    return out;
  }

 private:
  std::size_t room_ = kRoom;
};

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

std::string side(std::string_view which, const PartingSide& one) {
  const std::string legal = one.legal() ? fmt::format("legal under {}", fmt::join(one.legal_under, ", "))
                                        : fmt::format("not legal: {}", one.judged.headline);
  return fmt::format("- {}: {} ({}), {}\n", which, code(one.name), cell(one.judged.producer), cell(legal));
}

constexpr std::string_view kPartingHead =
    "| | field | elements | bits differ | ulps | A | B | A off float64 | B off (rms) | nearer |\n"
    "|---|---|--:|--:|--:|---|---|--:|--:|---|\n";

std::string parting_row(const FieldParting& one) {
  const PartingCells cells = parting_cells(one);
  return fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n", parting_sign(one),
                     cell(cells.field), cells.elements, cells.differ, cells.ulps, cells.in_a, cells.in_b,
                     cells.rms_a, cells.rms_b, cells.nearer);
}

}  // namespace

std::string render_markdown(const Report& report) {
  std::string out = fmt::format("### {} assay: {}\n", sign(mark(report.verdict())), case_counts_text(report));
  std::vector<std::string> good;
  std::vector<std::string> others;
  std::vector<std::string> details;
  for (const CaseResult& one : report.cases) {
    const bool passed = mark(one.verdict) == Mark::Good;
    (passed ? good : others).push_back(case_row(one));
    if (!passed && !one.fields.empty())
      details.push_back(folded(fmt::format("{} {}", code(one.problem), code(one.candidate)), fields(one)));
  }
  Fitting fitting;
  if (!others.empty())
    out +=
        fmt::format("\n{}{}{}", kCaseHead, fitting.of(others, "cases"), fitting.of(details, "cases' fields"));
  if (!good.empty()) out += folded("passed", std::string(kCaseHead) + fitting.of(good, "cases"));
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
  std::vector<std::string> changed;
  std::vector<std::string> same;
  for (const Finding* one : sorted) {
    const auto severity = static_cast<std::size_t>(one->severity);
    (one->severity == Severity::Same ? same : changed)
        .push_back(fmt::format("- {} {}: {}\n", signs[severity], what[severity], cell(one->sentence)));
  }
  Fitting fitting;
  if (!changed.empty()) out += fmt::format("\n{}", fitting.of(changed, "findings"));
  if (!same.empty()) out += folded("what is the same", fitting.of(same, "findings"));
  return out;
}

std::string render_markdown(const Parting& parting, const Report& judged) {
  const std::string first =
      parting.first ? fmt::format("they part first at {}", cell(name(*parting.first))) : "they do not part";
  std::string out = fmt::format("### {} assay diff: {}\n\n{}\n\n{}{}", sign(mark(parting)), first,
                                cell(parting.sentence), side("A", parting.a), side("B", parting.b));
  std::string apart;
  std::string others;
  for (const FieldParting& one : parting.fields) (one.parts() ? apart : others) += parting_row(one);
  if (!apart.empty()) out += fmt::format("\n{}{}", kPartingHead, apart);
  if (!others.empty()) out += folded("fields that do not part", std::string(kPartingHead) + others);
  if (const auto separating = others_sentence(parting); !separating.empty())
    out += fmt::format("\nother fields: {}\n", cell(separating));
  if (const auto routing = routing_sentence(parting.routing); !routing.empty())
    out += fmt::format("\nrouting: {}\n", cell(routing));
  std::vector<std::string> tokens;
  for (const RoutingParting& one : parting.routing.partings)
    tokens.push_back(fmt::format("- {}\n", cell(token_sentence(one))));
  if (!tokens.empty()) out += folded("tokens that take other experts", Fitting().of(tokens, "tokens"));
  return out + fmt::format("\n{}\n", code(judged.command));
}

}  // namespace assay
