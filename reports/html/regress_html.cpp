#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "harness/contract/bf16.h"
#include "reports/escape.h"
#include "reports/html/html_case.h"
#include "reports/html/html_plain.h"
#include "reports/html/html_sides.h"
#include "reports/html/svg.h"
#include "reports/regress_report.h"
#include "reports/wording.h"

namespace assay {
namespace {

using ElementPlace = std::vector<std::pair<std::string, std::int64_t>>;

struct Severities {
  std::string_view css;
  std::string_view sign;
  std::string_view words;
};
constexpr Severities kSeverities[] = {{"absent", "=", "same"},
                                      {"good", "✔", "approved"},
                                      {"doubt", "~", "legal change"},
                                      {"bad", "✘", "regression"}};
const Severities& about(Severity severity) { return kSeverities[static_cast<std::size_t>(severity)]; }

std::int64_t count(std::span<const Finding> findings, Severity severity) {
  return std::ranges::count(findings, severity, &Finding::severity);
}

std::string title(std::span<const Finding> findings) {
  const auto words = [](std::int64_t n, std::string_view one) {
    return fmt::format("{} {}{}", grouped_digits(n), one, n == 1 ? "" : "s");
  };
  if (const auto n = count(findings, Severity::Regression); n > 0) return words(n, "regression");
  if (const auto n = count(findings, Severity::Legal); n > 0) return words(n, "legal change");
  if (const auto n = count(findings, Severity::Approved); n > 0)
    return words(n, "approved change") + ", nothing else";
  return "Nothing changed";
}

const CaseResult* case_of(const Report& report, const std::string& problem, const std::string& candidate) {
  const CaseResult* found = nullptr;
  for (const CaseResult& one : report.cases) {
    if (one.problem != problem) continue;
    if (one.candidate == candidate) return &one;
    found = found == nullptr ? &one : found;  // B's candidate may have another name
  }
  return found;
}

const FieldResult* field_of(const CaseResult* one, Field field) {
  if (one == nullptr) return nullptr;
  const auto found = std::ranges::find(one->fields, field, &FieldResult::field);
  return found == one->fields.end() ? nullptr : &*found;
}

/// What a dump holds at a place that is named by axes of the field's table.
std::optional<double> stored_at(const FieldSet* fields, Field field, const ElementPlace& at) {
  if (fields == nullptr || !fields->has(field)) return std::nullopt;
  const Tensor& tensor = fields->at(field);
  std::int64_t flat = 0;
  for (std::size_t axis = 0; axis < tensor.shape().size(); ++axis) {
    if (axis >= row(field).shape.size() || row(field).shape[axis] == Dim::None) return std::nullopt;
    const auto found = std::ranges::find(at, axis_name(field, axis), &ElementPlace::value_type::first);
    if (found == at.end() || found->second < 0 || found->second >= tensor.shape()[axis]) return std::nullopt;
    flat = flat * tensor.shape()[axis] + found->second;
  }
  const auto i = static_cast<std::size_t>(flat);
  switch (tensor.dtype()) {
    case DType::BFloat16: return to_float(tensor.as<Bf16>()[i]);
    case DType::Int32: return tensor.as<std::int32_t>()[i];
    case DType::Float32: return tensor.as<float>()[i];
    case DType::Float64: break;
  }
  return tensor.as<double>()[i];
}

/// Whether row r of one dump and row r of the other are of one token and expert.
bool have_same_rows(const FieldSet& a, const FieldSet& b) {
  return std::ranges::all_of(std::initializer_list<Field>{Field::selected_experts, Field::gather_indices},
                             [&](Field field) {
                               if (!a.has(field) || !b.has(field)) return a.has(field) == b.has(field);
                               return std::ranges::equal(a.at(field).bytes(), b.at(field).bytes());
                             });
}

/// What a report says of a place: of its worst elements alone.
std::optional<double> listed_at(const Judgement& judgement, const ElementPlace& at) {
  if (judgement.worst && judgement.worst->at == at) return judgement.worst->out;
  const auto found = std::ranges::find(judgement.worst_rejected, at, &Element::at);
  return found == judgement.worst_rejected.end() ? std::nullopt : std::optional(found->out);
}

struct Sides {
  const RegressSide& a;
  const RegressSide& b;
  bool same_rows = a.fields != nullptr && b.fields != nullptr && have_same_rows(*a.fields, *b.fields);
};

/// The worst element of either side, with the other side's value at its place where that is known.
std::string worst_places(const Sides& sides, Field field, std::string_view way, const Judgement* before,
                         const Judgement* now) {
  std::string out;
  const auto value = [&](const RegressSide& side, const Judgement* judgement, const Element& e) {
    auto known = judgement == nullptr ? std::nullopt : listed_at(*judgement, e.at);
    return known || !sides.same_rows ? known : stored_at(side.fields, field, e.at);
  };
  const auto show = [&](std::string_view which, const Judgement* judgement) {
    if (judgement == nullptr || !judgement->worst) return;
    const Element& e = *judgement->worst;
    out += html::sides_figure(
        field, {e, value(sides.a, before, e), value(sides.b, now, e), fmt::format("reference of {}", which)},
        fmt::format("{}: {}'s worst element{}", way, which,
                    has_ratio(field) ? fmt::format(", {} of what is allowed", ratio_text(e.ratio)) : ""));
  };
  show("B", now);
  if (before != nullptr &&
      (now == nullptr || !now->worst || !before->worst || now->worst->at != before->worst->at))
    show("A", before);
  return out;
}

std::string figures_row(std::string_view way, const Judgement* a, const Judgement* b, Field field,
                        const Prediction& bits_a, const Prediction& bits_b) {
  const auto cell = [&](const Judgement* one, auto&& words) {
    return one != nullptr && compared(one->verdict) && one->elements > 0 ? words(*one) : std::string("–");
  };
  const auto both = [&](auto&& words) {
    return fmt::format("<td class=\"number\">{}</td><td class=\"number\">{}</td>", cell(a, words),
                       cell(b, words));
  };
  const auto bits = [](const Prediction& one) {
    return one.available ? grouped_digits(one.elements - one.as_predicted) : "–";
  };
  return fmt::format(
      "<tr><th scope=\"row\">{}</th>{}{}{}<td class=\"number\">{}</td><td class=\"number\">{}</td></tr>", way,
      both([&](const Judgement& one) { return has_ratio(field) ? ratio_text(one.max_ratio) : "exact"; }),
      both([](const Judgement& one) { return grouped_digits(one.rejected); }),
      both([](const Judgement& one) { return grouped_digits(one.mismatched); }), bits(bits_a), bits(bits_b));
}

std::string figures_table(const FieldResult* a, const FieldResult* b, Field field) {
  std::string out = "<div class=\"scroll\" tabindex=\"0\"><table class=\"routing\"><thead><tr><th></th>";
  for (const char* what : {"error / allowed", "outside", "bits differ", "not as predicted"})
    out += fmt::format(
        "<th scope=\"col\" class=\"number\">{0}, A</th><th scope=\"col\" class=\"number\">B</th>", what);
  out += "</tr></thead><tbody>";
  const Prediction none;
  const auto judgement = [](const FieldResult* one, Judgement FieldResult::* way) {
    return one == nullptr ? nullptr : &(one->*way);
  };
  const auto bits = [&](const FieldResult* one, Prediction FieldResult::* way) -> const Prediction& {
    return one == nullptr ? none : one->*way;
  };
  out += figures_row("isolated", judgement(a, &FieldResult::isolated), judgement(b, &FieldResult::isolated),
                     field, bits(a, &FieldResult::isolated_bits), bits(b, &FieldResult::isolated_bits));
  out += figures_row("chained", judgement(a, &FieldResult::chained), judgement(b, &FieldResult::chained),
                     field, bits(a, &FieldResult::chained_bits), bits(b, &FieldResult::chained_bits));
  return out + "</tbody></table></div>";
}

std::string verdict_of(const FieldResult* one) {
  return one == nullptr ? "<span class=\"muted\">not there</span>" : html::verdict_badge(one->verdict);
}

std::string field_part(const Finding& finding, const Sides& sides, bool open) {
  const Field field = *finding.field;
  const FieldResult* a = field_of(case_of(*sides.a.report, finding.problem, finding.candidate), field);
  const FieldResult* b = field_of(case_of(*sides.b.report, finding.problem, finding.candidate), field);
  std::string out = fmt::format(
      "<details class=\"field\"{}><summary><span class=\"{}\"><span class=\"sign\">{}</span> {}</span> "
      "<code>{}</code> A {} → B {}</summary><p>{}</p>",
      open ? " open" : "", about(finding.severity).css, about(finding.severity).sign,
      about(finding.severity).words, name(field), verdict_of(a), verdict_of(b), escaped(finding.sentence));
  out += figures_table(a, b, field);
  const auto way = [](const FieldResult* one, Judgement FieldResult::* which) {
    return one == nullptr || !compared((one->*which).verdict) ? nullptr : &(one->*which);
  };
  std::string places;
  for (const auto& [words, which] :
       {std::pair("isolated", &FieldResult::isolated), std::pair("chained", &FieldResult::chained)})
    places += worst_places(sides, field, words, way(a, which), way(b, which));
  if (!places.empty()) out += fmt::format("<div class=\"ways\">{}</div>", places);
  return out + "</details>\n";
}

/// A section per case in the order of the findings, its changed fields in theirs: the gravest first.
std::string cases(std::span<const Finding> findings, const Sides& sides) {
  std::vector<std::pair<std::string, std::string>> names;
  for (const Finding& one : findings)
    if (std::pair key(one.problem, one.candidate);
        one.field && one.severity > Severity::Same && std::ranges::find(names, key) == names.end())
      names.push_back(key);
  std::string out;
  constexpr std::int64_t kOpen = 6;
  constexpr std::size_t kInFull = 6;  // the file is to be mailed
  std::size_t in_full = 0;
  std::int64_t shown = 0;
  for (const auto& [problem, candidate] : names) {
    const CaseResult* a = case_of(*sides.a.report, problem, candidate);
    const CaseResult* b = case_of(*sides.b.report, problem, candidate);
    out += fmt::format("<section><h2>{}, {}</h2>", escaped(problem), escaped(candidate));
    for (const auto& [which, one] : {std::pair("A", a), std::pair("B", b)})
      if (one != nullptr)
        out +=
            fmt::format("<p>{} {} {}</p>", which, html::verdict_badge(one->verdict), escaped(one->headline));
    for (const Finding& one : findings)
      if (one.field && one.severity > Severity::Same && one.problem == problem && one.candidate == candidate)
        out += field_part(one, sides, shown++ < kOpen);
    for (const auto& [which, one] : {std::pair("A", a), std::pair("B", b)})
      if (one != nullptr && mark(one->verdict) == Mark::Bad && in_full < kInFull)
        out += html::case_as_judged(*one, in_full++, fmt::format("{} as judged", which));
    out += "</section>\n";
  }
  return out;
}

std::string findings_section(std::span<const Finding> findings) {
  std::string out = "<section id=\"changes\"><h2>What changed</h2><ul class=\"findings\">";
  for (const Finding& one : findings)
    out += fmt::format("<li><span class=\"{}\"><span class=\"sign\">{}</span> {}</span>: {}</li>\n",
                       about(one.severity).css, about(one.severity).sign, about(one.severity).words,
                       escaped(one.sentence));
  return out + "</ul></section>\n";
}

std::string side_row(std::string_view which, const RegressSide& side) {
  std::string revision;
  for (const auto& [what, value] : side.report->environment)
    if (what == "assay") revision = value;
  return fmt::format(
      "<tr><th scope=\"row\">{}</th><td class=\"path\">{}</td><td>{}</td><td>{}</td><td "
      "class=\"number\">{}</td><td "
      "class=\"number\">{}</td><td>{}</td></tr>",
      which, escaped(side.name), escaped(side.report->created), html::verdict_badge(side.report->verdict()),
      grouped_digits(static_cast<std::int64_t>(side.report->cases.size())),
      ratio_text(totals(*side.report).max_ratio), escaped(revision));
}

std::string sides_section(const Sides& sides) {
  return "<section id=\"sides\"><h2>The two</h2><div class=\"scroll\" tabindex=\"0\"><table "
         "class=\"routing\"><thead><tr><th></th><th scope=\"col\">file</th><th scope=\"col\">judged "
         "on</th><th "
         "scope=\"col\">verdict</th><th scope=\"col\" class=\"number\">cases</th><th scope=\"col\" "
         "class=\"number\">worst error</th><th scope=\"col\">assay</th></tr></thead><tbody>" +
         side_row("A", sides.a) + side_row("B", sides.b) + "</tbody></table></div></section>\n";
}

/// The first change in a sentence: what B's case says of itself where that is about the same field.
std::string lead(const Finding& first, const Report& b) {
  for (const CaseResult& one : b.cases)
    if (first.field && one.first_own_error == first.field && one.problem == first.problem &&
        one.candidate == first.candidate)
      return one.headline;
  return first.sentence;
}

}  // namespace

std::string render_regress_html(std::span<const Finding> all, const RegressSide& a, const RegressSide& b,
                                const Report& run) {
  std::vector<Finding> findings(all.begin(), all.end());
  std::ranges::stable_sort(findings, std::ranges::greater{}, &Finding::severity);
  const Severity worst = findings.empty() ? Severity::Same : findings.front().severity;
  std::string hero =
      findings.empty() ? ""
                       : fmt::format("<p class=\"lead\">{}</p>", escaped(lead(findings.front(), *b.report)));
  hero += "<dl class=\"tiles\">";
  for (const Severity one : {Severity::Regression, Severity::Legal, Severity::Approved})
    hero += html::tile(one == Severity::Approved ? "approved" : fmt::format("{}s", about(one).words),
                       grouped_digits(count(findings, one)), "");
  hero += html::tile("fields compared", grouped_digits(totals(*b.report).fields),
                     fmt::format("{} in A", grouped_digits(totals(*a.report).fields)));
  hero += html::tile("worst error", ratio_text(totals(*b.report).max_ratio),
                     fmt::format("{} in A; 1 is the limit", ratio_text(totals(*a.report).max_ratio)));
  const Sides sides{a, b};
  return html::plain_page({.kind = worst == Severity::Same ? "good" : about(worst).css,
                           .command = "assay regress",
                           .created = run.created,
                           .title = title(findings),
                           .hero = hero + "</dl>",
                           .body = findings_section(findings) + sides_section(sides) +
                                   cases(findings, sides) + html::environment_section(run),
                           .first = "changes"});
}

}  // namespace assay
