#include "reports/html/html.h"

#include <fmt/format.h>
#include <algorithm>
#include <array>
#include <utility>

#include "harness/contract/error.h"
#include "reports/escape.h"
#include "reports/html/html_assets.h"
#include "reports/html/html_case.h"
#include "reports/json.h"
#include "reports/wording.h"

namespace assay {
namespace {

std::int64_t count_marks(const Report& report, Mark kind) {
  return std::ranges::count_if(report.cases, [=](const CaseResult& c) { return mark(c.verdict) == kind; });
}

std::string verdict_in_words(const Report& report) {
  const auto all = static_cast<std::int64_t>(report.cases.size());
  const auto bad = count_marks(report, Mark::Bad), doubt = count_marks(report, Mark::Doubt),
             good = count_marks(report, Mark::Good);
  const auto of_all = [all](std::int64_t part) {
    return fmt::format("{} of {} case{}", grouped_digits(part), grouped_digits(all), all == 1 ? "" : "s");
  };
  const auto open = std::ranges::count_if(report.cases, [](const CaseResult& c) {
    return c.verdict == Verdict::MissingGolden || c.verdict == Verdict::NotJudged;
  });
  if (bad == 1 && all == 1) {
    const auto& own = report.cases[0].first_own_error;
    return own ? fmt::format("{} is wrong: stage {}", name(*own), name(row(*own).stage))
           : report.cases[0].verdict == Verdict::Crashed  ? "The implementation crashed"
           : report.cases[0].verdict == Verdict::TimedOut ? "The implementation did not return in time"
                                                          : "The case failed";
  }
  if (bad > 0) return of_all(bad) + " failed";
  if (open > 0) return of_all(open) + " could not be judged";
  if (doubt > 0) return "Nothing failed, but " + of_all(doubt) + (doubt == 1 ? " is" : " are") + " in doubt";
  if (good == 0) return "Nothing was compared";
  return good == all
             ? (all == 1 ? "The case passed" : fmt::format("All {} cases passed", grouped_digits(all)))
             : of_all(good) + " passed, the others were not compared";
}

/// The case a reader should look at first: the worst, the earliest among equals.
const CaseResult* first_to_read(const Report& report) {
  const auto found = std::ranges::max_element(report.cases, {}, &CaseResult::verdict);
  return found == report.cases.end() ? nullptr : &*found;
}

std::string tile(std::string_view what, const std::string& value, const std::string& below) {
  return fmt::format("<div class=\"tile\"><dt>{}</dt><dd>{}<small>{}</small></dd></div>", what, value, below);
}

std::string bits_tile(const Totals& sum) {
  const Prediction& bits = sum.chained_bits.available ? sum.chained_bits : sum.isolated_bits;
  if (!bits.available) return "";
  std::string rest = sum.chained_bits.available ? "from the inputs alone" : "stage by stage";
  if (bits.differing > 0) rest += fmt::format("; {} differ", grouped_digits(bits.differing));
  if (bits.undetermined > 0) rest += fmt::format("; {} undetermined", grouped_digits(bits.undetermined));
  return tile("bits as predicted", grouped_digits(bits.as_predicted),
              fmt::format("of {}, {}", grouped_digits(bits.elements), rest));
}

std::string hero(const Report& report) {
  const Totals sum = totals(report);
  const Verdict verdict = report.verdict();
  std::string out = fmt::format(
      "<header class=\"hero {}\"><p class=\"kicker\">{} <time>{}</time></p><h1><span "
      "class=\"sign\">{}</span> {}</h1>",
      html::css_class(verdict), escaped(report.title), escaped(report.created), sign(mark(verdict)),
      verdict_in_words(report));
  const CaseResult* one = first_to_read(report);
  if (one != nullptr &&
      (report.cases.size() == 1 ||
       mark(one->verdict) != Mark::Good)) {  // of many that passed, none is worth singling out
    const auto index = static_cast<std::size_t>(one - report.cases.data());
    out += fmt::format("<p class=\"lead\">{} <a href=\"#{}\">{}, {}</a></p>", escaped(one->headline),
                       html::case_id(index), escaped(one->problem), escaped(one->candidate));
    if (const std::string distance = distance_text(*one); !distance.empty())
      out += fmt::format("<p class=\"distance\">{}</p>", escaped(distance));
  }
  out += "<dl class=\"tiles\">";
  const std::string counts = case_counts_text(report);
  const std::size_t colon = counts.find(": ");
  out += tile("cases", grouped_digits(static_cast<std::int64_t>(report.cases.size())),
              colon == std::string::npos ? "" : counts.substr(colon + 2));
  out += tile("fields compared", grouped_digits(sum.fields),
              sum.absent > 0 ? fmt::format("{} not written or unsupported", grouped_digits(sum.absent))
                             : "none left out");
  out += tile("elements compared", grouped_digits(sum.elements), "every one against its own interval");
  out +=
      tile("worst error", ratio_text(sum.max_ratio), "of what is allowed; 1 is the limit") + bits_tile(sum);
  out += tile("time", seconds_text(report.seconds),
              report.peak_memory_bytes > 0 ? "peak memory " + bytes_text(report.peak_memory_bytes) : "");
  return out + "</dl></header>\n";
}

std::string filter_button(std::string_view kind, std::string_view label, std::int64_t count) {
  return fmt::format("<button type=\"button\" data-show=\"{}\" aria-pressed=\"{}\">{} <b>{}</b></button>",
                     kind, kind == "all" ? "true" : "false", label, count);
}

/// A row per case, a column per field that any case has, a chip with a sign in each cell.
std::string matrix(const Report& report) {
  std::array<bool, kFieldCount> present{};
  for (const CaseResult& c : report.cases)
    for (const FieldResult& f : c.fields) present[static_cast<std::size_t>(f.field)] = true;
  std::string out = "<section id=\"matrix\"><h2>Cases and fields</h2><div class=\"filter\" hidden>";
  out += filter_button("all", "all", static_cast<std::int64_t>(report.cases.size())) +
         filter_button("bad", "✘ failed", count_marks(report, Mark::Bad)) +
         filter_button("doubt", "~ in doubt", count_marks(report, Mark::Doubt)) +
         filter_button("good", "✔ passed", count_marks(report, Mark::Good)) +
         filter_button("absent", "- not compared", count_marks(report, Mark::Absent));
  out +=
      "<input type=\"search\" placeholder=\"filter by name\" aria-label=\"Filter cases by name\"></div><div "
      "class=\"scroll turned-room\" tabindex=\"0\"><table class=\"matrix\">"
      "<caption class=\"hidden-caption\">Verdict of every field of every case</caption><thead><tr><th "
      "scope=\"col\">case</th>";
  for (const FieldRow& field : kFields)
    if (present[static_cast<std::size_t>(field.id)])
      out += fmt::format("<th scope=\"col\" class=\"turned\"><span>{}</span></th>", field.name);
  out += "</tr></thead><tbody>";
  for (std::size_t i = 0; i < report.cases.size(); ++i) {
    const CaseResult& c = report.cases[i];
    out += fmt::format(
        "<tr data-kind=\"{}\" data-case=\"{}\"><th scope=\"row\"><a href=\"#{}\">{} "
        "{}<small>{}</small></a></th>",
        html::css_class(c.verdict), html::case_id(i), html::case_id(i), html::verdict_badge(c.verdict),
        escaped(c.problem), escaped(c.candidate));
    for (const FieldRow& field : kFields) {
      if (!present[static_cast<std::size_t>(field.id)]) continue;
      const auto found = std::ranges::find(c.fields, field.id, &FieldResult::field);
      if (found == c.fields.end())
        out += "<td></td>";
      else
        out += fmt::format("<td><a class=\"chip {}\" href=\"#{}\" aria-label=\"{}: {}\">{}</a></td>",
                           html::css_class(found->verdict), html::field_id(i, field.id), field.name,
                           words(*found), sign(mark(found->verdict)));
    }
    out += "</tr>\n";
  }
  out += "</tbody></table></div>";
  if (const auto good = count_marks(report, Mark::Good); good > kDetailedPassingCases)
    out += fmt::format(
        "<p class=\"remark\">The first {} passing cases are shown in full, the other {} in figures. What "
        "assay verify --json writes has everything of every case.</p>",
        kDetailedPassingCases, grouped_digits(good - kDetailedPassingCases));
  return out + "</section>\n";
}

std::string environment(const Report& report) {
  std::string out = "<section id=\"environment\"><h2>Environment</h2><table class=\"facts\">";
  for (const auto& [what, value] : report.environment)
    out += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escaped(what), escaped(value));
  return out + "</table>" + html::command_line("command", report.command) + "</section>\n";
}

std::string case_sections(const Report& report) {
  std::string out;
  int detailed = 0;
  for (std::size_t i = 0; i < report.cases.size(); ++i) {
    const bool passed = mark(report.cases[i].verdict) == Mark::Good;
    const bool details = !passed || ++detailed <= kDetailedPassingCases;
    out += html::case_section(report.cases[i], i,
                              {.open = !passed || report.cases.size() == 1, .details = details});
  }
  return out;
}

/// JSON inside a script element: "<" occurs in strings only, where \u003c means the same and closes nothing.
/// Of passing cases in brief it has the figures: the file is to be mailed.
std::string data_block(Report report) {
  std::string out;
  int detailed = 0;
  for (CaseResult& one : report.cases) {
    if (mark(one.verdict) != Mark::Good || ++detailed <= kDetailedPassingCases) continue;
    for (FieldResult& field : one.fields) {
      field.vacuity.clear();
      for (Judgement* judgement : {&field.isolated, &field.chained}) {
        judgement->worst.reset();
        judgement->worst_by_expert.clear();
        judgement->statistics = {};
        judgement->bounds = {};
      }
    }
  }
  for (const char c : to_json(report, JsonLayout::Compact)) c == '<' ? out += "\\u003c" : out += c;
  return out;
}

/// The page with its markers replaced, in one pass: text that looks like a marker is left alone.
std::string filled(std::string_view page,
                   std::initializer_list<std::pair<std::string_view, std::string_view>> values) {
  std::string out;
  while (true) {
    const std::size_t start = page.find("{{");
    out += page.substr(0, start);
    if (start == std::string_view::npos) return out;
    const std::size_t end = page.find("}}", start);
    const std::string_view marker = page.substr(start + 2, end - start - 2);
    const auto found =
        std::ranges::find(values, marker, &std::pair<std::string_view, std::string_view>::first);
    if (found == values.end())
      throw InputError(fmt::format("expected a known marker in page.html, found {}", marker));
    out += found->second;
    page.remove_prefix(end + 2);
  }
}

}  // namespace

std::string render_html(const Report& report, const History& history) {
  const std::string title =
      fmt::format("{} {}: {}", sign(mark(report.verdict())), verdict_in_words(report), escaped(report.title));
  const std::string body = hero(report);
  const std::string cases =
      matrix(report) + html::trend_section(report, history) + case_sections(report) + environment(report);
  return filled(html::kPage, {{"title", title},
                              {"style", html::kStyle},
                              {"script", html::kScript},
                              {"hero", body},
                              {"cases", cases},
                              {"data", data_block(report)}});
}

}  // namespace assay
