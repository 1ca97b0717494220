#include "reports/text_table.h"

#include <functional>
#include <sstream>

#include <fmt/format.h>

#include "reports/columns.h"
#include "reports/text_paint.h"
#include "reports/wording.h"

namespace assay {
namespace {

constexpr std::size_t kHeaderLines = 2;

// What the table shows; a narrow terminal gives it up from the bottom of `kLayouts` upwards.
struct ColumnLayout {
  bool predicted_counts;  // "2,048 of 2,048" instead of "all"
  bool chained_differ;
  bool isolated_differ;
  bool verdict_words;
};
constexpr ColumnLayout kLayouts[] = {{true, true, true, true},
                                     {false, true, true, true},
                                     {false, false, true, true},
                                     {false, false, false, true},
                                     {false, false, false, false}};

std::string judgement_cell(Field field, const Judgement& judgement, bool colour) {
  if (!compared(judgement.verdict)) return "-";
  std::string text;
  if (judgement.non_finite > 0 && failed(judgement.verdict))
    text = grouped_digits(judgement.non_finite) + " NaN/inf ";
  else if (judgement.elements == 0)
    text = "";  // its shape or dtype is wrong: the last column says it
  else if (has_ratio(field))
    text = ratio_text(judgement.max_ratio) + " ";
  else if (judgement.rejected > 0)
    text = grouped_digits(judgement.rejected) + " wrong ";
  else
    text = "exact ";
  const Mark kind = mark(judgement.verdict);
  return painted(text.append(sign(kind)), kind, colour);
}

std::string differ_cell(const Judgement& judgement) {
  return compared(judgement.verdict) && judgement.elements > 0 ? grouped_digits(judgement.mismatched) : "";
}

std::string prediction_cell(const Prediction& prediction, const ColumnLayout& layout, bool colour) {
  if (!prediction.available) return "-";
  const bool complete = prediction.as_predicted == prediction.elements;
  const Mark kind = prediction.differing > 0 && prediction.binding ? Mark::Doubt
                    : complete                                     ? Mark::Good
                                                                   : Mark::Absent;
  std::string text = complete ? "all" : grouped_digits(prediction.undetermined) + " undet.";
  if (layout.predicted_counts)
    text = grouped_digits(prediction.as_predicted) + " of " + grouped_digits(prediction.elements);
  else if (prediction.differing > 0)
    text = (layout.verdict_words ? "" : "≠ ") + grouped_digits(prediction.differing) +
           (layout.verdict_words ? " differ" : "");
  if (layout.predicted_counts && prediction.undetermined > 0)
    text += fmt::format(", {} undet.", grouped_digits(prediction.undetermined));
  return painted(text, kind, colour);
}

/// One column: its two header lines and how a field fills it.
struct Column {
  std::string_view group;
  std::string_view name;
  Align align;
  std::function<std::string(const FieldResult&)> cell;
};

std::vector<Column> columns_of(const CaseResult& result, const ColumnLayout& layout, bool colour) {
  const Totals sum = totals(result);
  const bool predicted = sum.isolated_bits.available || sum.chained_bits.available;
  std::vector<Column> columns = {
      {"", "", Align::Left,
       [=](const FieldResult& f) { return painted(sign(mark(f.verdict)), mark(f.verdict), colour); }},
      {"", "field", Align::Left, [](const FieldResult& f) { return std::string(name(f.field)); }},
      {"", "stage", Align::Left, [](const FieldResult& f) { return std::string(name(row(f.field).stage)); }},
      {"", "elements", Align::Right,
       [](const FieldResult& f) { return elements(f) > 0 ? grouped_digits(elements(f)) : ""; }},
      {"isolated", "worst  ", Align::Right,
       [=](const FieldResult& f) { return judgement_cell(f.field, f.isolated, colour); }}};
  if (layout.isolated_differ)
    columns.push_back(
        {"bits", "differ", Align::Right, [](const FieldResult& f) { return differ_cell(f.isolated); }});
  columns.push_back({"chained", "worst  ", Align::Right,
                     [=](const FieldResult& f) { return judgement_cell(f.field, f.chained, colour); }});
  if (layout.chained_differ)
    columns.push_back(
        {"bits", "differ", Align::Right, [](const FieldResult& f) { return differ_cell(f.chained); }});
  if (predicted) {
    columns.push_back({"bits as", "isolated", Align::Left, [=](const FieldResult& f) {
                         return prediction_cell(f.isolated_bits, layout, colour);
                       }});
    columns.push_back({"predicted", "chained", Align::Left, [=](const FieldResult& f) {
                         return prediction_cell(f.chained_bits, layout, colour);
                       }});
  }
  if (layout.verdict_words)
    columns.push_back({"", "verdict", Align::Left,
                       [=](const FieldResult& f) { return painted(words(f), mark(f.verdict), colour); }});
  return columns;
}

Columns filled(const std::vector<Column>& columns, const std::vector<FieldResult>& fields) {
  Columns table;
  table.rows.resize(kHeaderLines + fields.size());
  for (const Column& column : columns) {
    table.aligns.push_back(column.align);
    table.rows[0].emplace_back(column.group);
    table.rows[1].emplace_back(column.name);
    for (std::size_t i = 0; i < fields.size(); ++i)
      table.rows[kHeaderLines + i].push_back(column.cell(fields[i]));
  }
  return table;
}

/// The table's lines, with the part of the layer's result that fields belong to above the first of each.
std::string with_parts(const std::string& lines, const std::vector<FieldResult>& fields, std::size_t indent) {
  std::istringstream stream(lines);
  std::string out;
  std::string_view part;
  std::string line;
  for (std::size_t i = 0; std::getline(stream, line); ++i) {
    const bool is_field = i >= kHeaderLines;
    if (is_field && part_of_result(fields[i - kHeaderLines].field) != part) {
      part = part_of_result(fields[i - kHeaderLines].field);
      out += fmt::format("{}{}\n", std::string(indent, ' '), part);
    }
    out += line + '\n';
  }
  return out;
}

}  // namespace

std::string field_table(const CaseResult& result, const TextOptions& options) {
  constexpr std::size_t kIndent = 2;
  for (const ColumnLayout& layout : kLayouts) {
    const Columns table = filled(columns_of(result, layout, options.colour), result.fields);
    const bool last = &layout == std::end(kLayouts) - 1;
    if (table.width() + kIndent > static_cast<std::size_t>(options.width) && !last) continue;
    return with_parts(table.text(kIndent), result.fields, kIndent) +
           (layout.verdict_words ? ""
                                 : "  ✔ passed  ✘ failed  ~ suspect, unstable or mistrusted  "
                                   "- not written or not compared\n");
  }
  return "";
}

}  // namespace assay
