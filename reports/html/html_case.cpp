#include "reports/html/html_case.h"

#include <algorithm>
#include <functional>

#include <fmt/format.h>

#include "harness/contract/counted_words.h"
#include "reports/escape.h"
#include "reports/html/svg.h"
#include "reports/wording.h"

namespace assay::html {
namespace {

std::string fact(std::string_view what, const std::string& value) {
  return value.empty() ? "" : fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", what, escaped(value));
}

std::string facts(const CaseResult& c) {
  std::string out = "<dl class=\"case-facts\">";
  out += fact("contract", c.contract) + fact("producer", c.producer) + fact("device", c.device) +
         fact("accumulators", c.accumulators);
  out += fact("tokens T", grouped_digits(c.tokens)) +
         fact("experts K of E", fmt::format("{} of {}", c.config.top_k, c.config.num_experts));
  out += fact("hidden H", grouped_digits(c.config.hidden_size)) +
         fact("intermediate I", grouped_digits(c.config.moe_intermediate_size));
  if (!c.config.norm_topk_prob) out += fact("weights", "not renormalised");
  out += fact("seed", std::to_string(c.seed)) + fact("verified in", seconds_text(c.seconds));
  if (c.multiply_adds > 0) out += fact("multiply-adds", grouped_digits(c.multiply_adds));
  if (c.reference_values > 0)
    out +=
        fact("reference values confirmed by the plain Eigen layer",
             fmt::format("{} of {}", grouped_digits(c.confirmed_values), grouped_digits(c.reference_values)));
  return out + "</dl>";
}

/// The stages in pipeline order, each with the worst verdict of its fields: where the error starts and where
/// it goes.
std::string flow(const CaseResult& c, std::size_t index) {
  std::string out = "<ol class=\"flow\" aria-label=\"Stages in order\">";
  for (std::size_t i = 0; i < c.fields.size();) {
    const Stage stage = row(c.fields[i].field).stage;
    const FieldResult* shown = &c.fields[i];
    bool first_own = false;
    for (; i < c.fields.size() && row(c.fields[i].field).stage == stage; ++i) {
      if (shown->verdict < c.fields[i].verdict) shown = &c.fields[i];
      if (c.first_own_error == c.fields[i].field) {
        shown = &c.fields[i];
        first_own = true;
      }
    }
    const Mark kind = mark(shown->verdict);
    out += fmt::format("<li class=\"{}{}\"><a href=\"#{}\"><span class=\"sign\">{}</span> {}{}</a></li>",
                       css_class(shown->verdict), first_own ? " first" : "", field_id(index, shown->field),
                       sign(kind), name(stage), first_own ? "<small>first own error</small>" : "");
  }
  return out + "</ol>";
}

// Every row has two lines, isolated above chained, in each of its last columns.
std::string two_lines(std::string_view css, const std::string& isolated, const std::string& chained) {
  return fmt::format("<td class=\"{}\"><div>{}</div><div>{}</div></td>", css, isolated, chained);
}

std::string ratio_line(Field field, const Judgement& judgement) {
  if (!compared(judgement.verdict)) return "–";
  std::string text = judgement.rejected > 0 ? grouped_digits(judgement.rejected) + " wrong" : "exact";
  if (judgement.elements == 0)
    text = std::string(words(judgement.verdict));
  else if (judgement.non_finite > 0 && failed(judgement.verdict))
    text = grouped_digits(judgement.non_finite) + " NaN/inf";
  else if (has_ratio(field))
    text = ratio_text(judgement.max_ratio);
  return fmt::format("<span class=\"{}\"><span class=\"sign\">{}</span> {}</span>",
                     css_class(judgement.verdict), sign(mark(judgement.verdict)), text);
}

std::string differ_line(const Judgement& judgement) {
  return compared(judgement.verdict) && judgement.elements > 0 ? grouped_digits(judgement.mismatched) : "–";
}

std::string predicted_line(const Prediction& bits) {
  if (!bits.available) return "–";
  const bool all = bits.as_predicted == bits.elements;
  return (all ? "all " : svg::bits_meter(bits) + grouped_digits(bits.as_predicted) + " of ") +
         grouped_digits(bits.elements);
}

/// Whether a field has a section of its own: what is not good always, what is good where there is an element
/// to show.
bool has_section(const FieldResult& f, bool details) {
  if (mark(f.verdict) == Mark::Bad || mark(f.verdict) == Mark::Doubt || !f.notes.empty()) return true;
  return details && (f.isolated.worst || f.chained.worst);
}

std::string stage_row(const CaseResult& c, const FieldResult& f, std::size_t index,
                      const svg::RatioAxis& axis, bool predicted, bool linked) {
  const std::string title =
      linked ? fmt::format("<a href=\"#{}\">{}</a>", field_id(index, f.field), name(f.field))
             : std::string(name(f.field));
  const std::string size =
      elements(f) > 0 ? fmt::format("<small>{}</small>", counted(elements(f), "element")) : "";
  std::string bars;
  if (elements(f) > 0)
    bars = has_ratio(f.field) ? svg::ratio_bars(f, axis) : "<span class=\"muted\">must match exactly</span>";
  std::string out =
      fmt::format("<tr class=\"{}{}\"{}><th scope=\"row\"><code>{}</code>{}</th><td>{}</td><td>{}</td>",
                  css_class(f.verdict), inherited(c, f) ? " inherited" : "",
                  linked ? "" : fmt::format(" id=\"{}\"", field_id(index, f.field)), title, size,
                  name(row(f.field).stage), verdict_sentence(f));
  out += fmt::format("<td class=\"bars\">{}</td>", bars);
  out += two_lines("way-names", "isolated", "chained");
  out += two_lines("number", ratio_line(f.field, f.isolated), ratio_line(f.field, f.chained));
  out += two_lines("number", differ_line(f.isolated), differ_line(f.chained));
  if (predicted) out += two_lines("bits", predicted_line(f.isolated_bits), predicted_line(f.chained_bits));
  return out + "</tr>\n";
}

/// One body per part of the layer's result, its name across all columns, and what `line` makes of each field.
std::string table_bodies(const std::vector<FieldResult>& fields, int columns,
                         const std::function<std::string(const FieldResult&)>& line) {
  std::string out;
  std::string_view part;
  for (const FieldResult& f : fields) {
    if (part_of_result(f.field) != part) {
      out += part.empty() ? "" : "</tbody>";
      part = part_of_result(f.field);
      out += fmt::format("<tbody><tr class=\"part\"><th scope=\"rowgroup\" colspan=\"{}\">{}</th></tr>\n",
                         columns, part);
    }
    out += line(f);
  }
  return out.empty() ? out : out + "</tbody>";
}

std::string stage_table(const CaseResult& c, std::size_t index, bool all) {
  const svg::RatioAxis axis = svg::ratio_axis(c);
  const Totals sum = totals(c);
  const bool predicted = sum.isolated_bits.available || sum.chained_bits.available;
  std::string out =
      "<div class=\"scroll\" tabindex=\"0\"><table class=\"stages\"><caption>Fields in the order of the "
      "layer. Upper line and bar "
      "<span class=\"key isolated\"></span>isolated: the stage's own error. Lower <span class=\"key "
      "chained\"></span>chained: own and inherited. "
      "The dashed line at 1 is the limit. “Bits differ” counts elements unlike the rounded reference: "
      "information, not a verdict.</caption>"
      "<thead><tr><th scope=\"col\">field</th><th scope=\"col\">stage</th><th scope=\"col\">verdict</th>";
  out += fmt::format(
      "<th scope=\"col\" class=\"bars\"><span class=\"spoken\">error / allowed, drawn</span>{}</th>",
      svg::axis_labels(axis));
  out +=
      "<th scope=\"col\"><span class=\"spoken\">way of judging</span></th><th scope=\"col\" "
      "class=\"number\">error / allowed</th>"
      "<th scope=\"col\" class=\"number\">bits differ</th>";
  if (predicted) out += "<th scope=\"col\">bits as predicted</th>";
  out += "</tr></thead>";
  out += table_bodies(c.fields, predicted ? 8 : 7, [&](const FieldResult& f) {
    return stage_row(c, f, index, axis, predicted, has_section(f, all));
  });
  return out + "</table></div>";
}

/// A passing case of many: figures without drawings, and an anchor for each field.
std::string brief_table(const CaseResult& c, std::size_t index) {
  const Totals sum = totals(c);
  const bool predicted = sum.isolated_bits.available || sum.chained_bits.available;
  std::string out = fmt::format(
      "<div class=\"scroll\" tabindex=\"0\"><table class=\"brief\"><thead><tr><th "
      "scope=\"col\">field</th><th scope=\"col\">elements</th>"
      "<th scope=\"col\">error / allowed, isolated</th><th scope=\"col\">chained</th>{}</tr></thead>",
      predicted ? "<th scope=\"col\">bits as predicted, isolated</th><th scope=\"col\">chained</th>" : "");
  const auto figure = [](Field field, const Judgement& j) {
    return !compared(j.verdict) || j.elements == 0 ? "–"
           : has_ratio(field)                      ? ratio_text(j.max_ratio)
                                                   : "exact";
  };
  const auto bits = [](const Prediction& p) {
    return !p.available ? "–" : p.as_predicted == p.elements ? "all" : prediction_text(p);
  };
  const auto line = [&](const FieldResult& f) {
    const bool linked = has_section(f, false);  // then the anchor is the section's
    const std::string title =
        linked ? fmt::format("<a href=\"#{}\">{}</a>", field_id(index, f.field), name(f.field))
               : std::string(name(f.field));
    std::string cells =
        fmt::format("<tr{}><th scope=\"row\"><code>{}</code></th><td>{}</td><td>{}</td><td>{}</td>",
                    linked ? "" : fmt::format(" id=\"{}\"", field_id(index, f.field)), title,
                    elements(f) > 0 ? grouped_digits(elements(f)) : std::string(words(f)),
                    figure(f.field, f.isolated), figure(f.field, f.chained));
    if (predicted)
      cells += fmt::format("<td>{}</td><td>{}</td>", bits(f.isolated_bits), bits(f.chained_bits));
    return cells + "</tr>\n";
  };
  return out + table_bodies(c.fields, predicted ? 6 : 4, line) + "</table></div>";
}

std::string routing(const CaseResult& c) {
  std::string out;
  if (!c.expert_load.empty()) {
    std::vector<svg::Bar> bars;
    std::int64_t rows = 0;
    std::int64_t busy = 0;
    for (const std::int64_t load : c.expert_load) {
      bars.push_back({static_cast<std::int64_t>(bars.size()), static_cast<double>(load)});
      rows += load;
      busy += load > 0;
    }
    out += fmt::format(
        "<figure>{}<figcaption>Rows per expert: {} on {} of {} experts, at most {}; the line is the "
        "mean.</figcaption></figure>",
        svg::bar_chart(bars, svg::BarScale::Counts, "rows per expert"), counted(rows, "row"), busy,
        bars.size(), grouped_digits(*std::ranges::max_element(c.expert_load)));
  }
  out += flips_table(c);
  return out.empty() ? out : "<h3>Routing</h3>" + out;
}

}  // namespace

std::string case_id(std::size_t index) { return fmt::format("c{}", index + 1); }
std::string field_id(std::size_t index, Field field) { return fmt::format("c{}-{}", index + 1, name(field)); }

std::string_view css_class(Mark mark) {
  constexpr std::string_view classes[] = {"good", "bad", "doubt", "absent"};
  return classes[static_cast<std::size_t>(mark)];
}

std::string_view css_class(Verdict verdict) { return css_class(mark(verdict)); }

std::string verdict_badge(Verdict verdict) {
  return fmt::format("<span class=\"badge {}\"><span class=\"sign\">{}</span> {}</span>", css_class(verdict),
                     sign(mark(verdict)), words(verdict));
}

std::string verdict_sentence(const FieldResult& result) {
  std::string out = verdict_badge(result.verdict);
  // A field of the wrong shape or dtype has no elements: whose error it is was not asked.
  if (failed(result.isolated.verdict) && result.isolated.elements > 0)
    out += " <small>own error</small>";
  else if (failed(result.chained.verdict) && result.chained.elements > 0)
    out += " <small>inherited</small>";
  return out;
}

std::string command_line(std::string_view label, std::string_view command) {
  if (command.empty()) return "";
  return fmt::format(
      "<div class=\"command\"><span>{}</span><code>{}</code><button type=\"button\" class=\"copy\" "
      "hidden>copy</button></div>",
      label, escaped(command));
}

std::string commands(const CaseResult& result) {
  const std::string lines = command_line("replay", result.replay) + command_line("explain", result.explain) +
                            command_line("minimize", result.minimize);
  return lines.empty() ? "" : fmt::format("<div class=\"commands\">{}</div>", lines);
}

std::string case_start(const CaseResult& result, std::size_t index, bool open, bool packed) {
  const bool unstable =
      std::ranges::any_of(result.fields, [](const FieldResult& f) { return f.verdict == Verdict::Unstable; });
  std::string out = fmt::format(
      "<details class=\"case {}\" id=\"{}\" data-kind=\"{}\"{}{}><summary><h2>{}{} {}</h2><span "
      "class=\"muted\">{}</span></summary>",
      css_class(result.verdict), case_id(index), css_class(result.verdict), open ? " open" : "",
      packed ? " data-packed" : "", verdict_badge(result.verdict),
      unstable && result.verdict != Verdict::Unstable ? fmt::format(" {}", verdict_badge(Verdict::Unstable))
                                                      : "",
      escaped(result.problem), result.candidate == result.problem ? "" : escaped(result.candidate));
  return out + fmt::format("<p class=\"headline\">{}</p>", escaped(result.headline));
}

std::vector<SectionPiece> case_rest(const CaseResult& result, std::size_t index, Detail detail) {
  const bool details = detail != Detail::Figures;
  const bool bad = mark(result.verdict) != Mark::Good;
  std::string top = bad ? commands(result) : "";
  if (details && !result.fields.empty()) top += flow(result, index);
  if (!result.fields.empty()) top += facts(result);
  std::vector<SectionPiece> pieces = {{"top", top}};
  if (!result.fields.empty())
    pieces.push_back({details ? "table" : "brief", details ? stage_table(result, index, detail == Detail::All)
                                                           : brief_table(result, index)});
  std::string remarks;
  for (const std::string& remark : result.remarks)
    remarks += fmt::format("<p class=\"remark\">{}</p>", escaped(remark));
  pieces.push_back({"remarks", remarks});
  bool any = false;
  for (const FieldResult& field : result.fields) {
    if (!has_section(field, detail == Detail::All)) continue;
    if (!any) pieces.back().markup += "<h3>Field by field</h3>\n";
    any = true;
    for (SectionPiece& piece : field_section(result, field, index, detail))
      pieces.push_back(std::move(piece));
  }
  pieces.push_back({"end", (details ? routing(result) : "") + (bad ? "" : commands(result))});
  return pieces;
}

}  // namespace assay::html
