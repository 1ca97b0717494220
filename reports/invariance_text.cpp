#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "reports/columns.h"
#include "reports/invariance_report.h"
#include "reports/json.h"
#include "reports/wording.h"

namespace assay {
namespace {

using Json = nlohmann::ordered_json;

Json change_json(const InvarianceChange& change) {
  Json fields = Json::array();
  for (const auto& one : change.fields)
    fields.push_back({{"field", std::string(name(one.field))},
                      {"tokens", one.tokens},
                      {"differing_tokens", one.differing_tokens},
                      {"elements", one.elements},
                      {"differing", one.differing}});
  return {{"change", change.name},
          {"promise", std::string(name(change.of))},
          {"runs", change.runs},
          {"differing_runs", change.differing_runs},
          {"first", change.first ? Json(std::string(name(*change.first))) : Json(nullptr)},
          {"judged", change.judged ? Json(std::string(name(*change.judged))) : Json(nullptr)},
          {"headline", change.judged_headline},
          {"fields", fields}};
}

std::string legal_cell(const InvarianceChange& change) {
  return change.judged ? std::string(words(*change.judged)) : "";
}

}  // namespace

std::vector<Field> fields_compared(const InvarianceCase& one) {
  FieldFlags seen{};
  for (const auto& change : one.changes)
    for (const auto& field : change.fields) seen[static_cast<std::size_t>(field.field)] = true;
  std::vector<Field> all;
  for (const FieldRow& field : kFields)
    if (seen[static_cast<std::size_t>(field.id)]) all.push_back(field.id);
  return all;
}

std::string invariance_cell(const InvarianceChange& change, Field field) {
  const auto one = std::ranges::find(change.fields, field, &ChangedField::field);
  if (one == change.fields.end()) return "";
  if (one->differing == 0) return "=";
  return one->tokens > 0
             ? fmt::format("{} of {}", grouped_digits(one->differing_tokens), grouped_digits(one->tokens))
             : fmt::format("{} of {}", grouped_digits(one->differing), grouped_digits(one->elements));
}

std::string invariance_table(const InvarianceCase& one, const TextOptions& options) {
  if (one.changes.empty()) return "";
  Columns table{{Align::Left, Align::Right, Align::Left, Align::Left},
                {{"change", "runs", "first other bits", "judged"}}};
  for (const auto& change : one.changes)
    table.rows.push_back({change.name, grouped_digits(change.runs),
                          change.first ? std::string(name(*change.first)) : "=", legal_cell(change)});
  std::string out = fmt::format("\n{}", table.text(2));
  Columns cells{{Align::Left}, {{"field: tokens with other bits"}}};
  std::vector<const InvarianceChange*> differing;
  for (const auto& change : one.changes)
    if (change.differs()) differing.push_back(&change);
  if (differing.empty()) return out + "\n";
  // Few columns fit a terminal: those of changes with other bits; JSON and the page have all.
  const std::size_t most = std::max<std::size_t>(1, static_cast<std::size_t>(options.width) / 22);
  for (std::size_t i = 0; i < std::min(most, differing.size()); ++i) {
    cells.aligns.push_back(Align::Right);
    cells.rows[0].push_back(differing[i]->name);
  }
  for (const Field field : fields_compared(one)) {
    cells.rows.emplace_back(1, std::string(name(field)));
    for (std::size_t i = 0; i < std::min(most, differing.size()); ++i)
      cells.rows.back().push_back(invariance_cell(*differing[i], field));
  }
  return fmt::format("{}\n{}\n", out, cells.text(2));
}

std::string invariance_json(std::span<const InvarianceCase> cases, const Report& judged) {
  Json all = Json::array();
  for (const auto& one : cases) {
    Json changes = Json::array();
    for (const auto& change : one.changes) changes.push_back(change_json(change));
    all.push_back({{"problem", one.problem}, {"candidate", one.candidate}, {"changes", changes}});
  }
  const Json document = {{"schema", "assay-invariance"},
                         {"version", 1},
                         {"verdict", std::string(name(judged.verdict()))},
                         {"cases", all},
                         {"judged", Json::parse(to_json(judged, JsonLayout::Compact))}};
  return document.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace assay
