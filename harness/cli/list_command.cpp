// assay list: what there is, as text or JSON.
#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "fixtures/faults.h"
#include "fixtures/fixtures.h"
#include "harness/cli/commands.h"
#include "harness/cli/pipelines.h"
#include "harness/contract/field_set.h"
#include "harness/contract/precision_contract.h"

namespace assay::cli {
namespace {

/// Rows of named cells; JSON and text come from the same rows.
struct Listing {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
};

std::string shape_text(const FieldRow& field) {
  std::string text;
  for (const Dim dim : field.shape)
    if (dim != Dim::None) text += fmt::format("{}{}", text.empty() ? "" : ", ", symbol(dim));
  return "[" + text + "]";
}

Listing fields() {
  Listing listing{{"field", "group", "stage", "shape", "dtype", "match", "GroupedGEMMResult", "HuggingFace"},
                  {}};
  for (const auto& field : kFields)
    listing.rows.push_back({std::string(field.name), std::string(name(field.group)),
                            std::string(name(field.stage)), shape_text(field),
                            std::string(row(field.dtype).name), std::string(name(field.match)),
                            in_grouped_gemm_result(field.id) ? "yes" : "", std::string(field.alias)});
  return listing;
}

Listing stages() {
  Listing listing{{"stage", "fields"}, {}};
  for (const auto& field : kFields) {
    if (listing.rows.empty() || listing.rows.back()[0] != name(field.stage))
      listing.rows.push_back({std::string(name(field.stage)), ""});
    listing.rows.back()[1] += fmt::format("{}{}", listing.rows.back()[1].empty() ? "" : ", ", field.name);
  }
  return listing;
}

Listing fixture_rows() {
  Listing listing{{"fixture", "model", "tokens", "routing", "seed", "golden", "why"}, {}};
  for (const auto& f : fixtures())
    listing.rows.push_back({std::string(f.name), std::string(f.model),
                            fmt::format("{}x{}", f.batch, f.sequence), std::string(f.routing),
                            fmt::format("{}", f.seed), f.golden ? "yes" : "", std::string(f.why)});
  return listing;
}

Listing pipeline_rows() {
  Listing listing{{"pipeline", "what it is"}, {}};
  for (const auto& p : pipelines()) listing.rows.push_back({std::string(p.name), std::string(p.sentence)});
  listing.rows.push_back({"dump:FILE.h5", "what any framework wrote in the schema (golden/SCHEMA.md)"});
  listing.rows.push_back({"plugin:PATH.so", "a layer of yours in a shared library (harness/host/plugin.h)"});
  listing.rows.push_back(
      {"NAME#CONFIG", "one config of gpu_fused or of a plugin; verify --sweep runs them all"});
  return listing;
}

Listing contracts() {
  Listing listing{{"contract", "who"}, {}};
  for (const auto& c : kContracts) listing.rows.push_back({std::string(c.name), std::string(c.summary)});
  return listing;
}

Listing fault_rows() {
  Listing listing{{"fault", "shows in", "catalogue", "what is planted"}, {}};
  for (const auto& f : faults())
    listing.rows.push_back({std::string(f.id), std::string(name(f.shows_in())), fmt::format("{}", f.number),
                            std::string(f.sentence)});
  return listing;
}

struct What {
  const char* name;
  Listing (*rows)();
};
constexpr What kWhat[] = {{"fields", fields},           {"stages", stages},       {"fixtures", fixture_rows},
                          {"pipelines", pipeline_rows}, {"contracts", contracts}, {"faults", fault_rows}};

void print(const Listing& listing) {
  std::vector<std::size_t> widths(listing.columns.size());
  for (std::size_t c = 0; c < widths.size(); ++c) {
    widths[c] = listing.columns[c].size();
    for (const auto& row : listing.rows) widths[c] = std::max(widths[c], row[c].size());
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (std::size_t c = 0; c < cells.size(); ++c) text += fmt::format("{:<{}}  ", cells[c], widths[c]);
    text.erase(text.find_last_not_of(' ') + 1);
    fmt::print("{}\n", text);
  };
  line(listing.columns);
  for (const auto& row : listing.rows) line(row);
}

std::string to_json(const Listing& listing) {
  auto array = nlohmann::ordered_json::array();
  for (const auto& row : listing.rows) {
    nlohmann::ordered_json object;
    for (std::size_t c = 0; c < row.size(); ++c) object[listing.columns[c]] = row[c];
    array.push_back(std::move(object));
  }
  return array.dump(2);
}

}  // namespace

void add_list(CLI::App& app, Program& program) {
  auto* command = app.add_subcommand(
      "list", "what there is: fields, stages, fixtures, pipelines, contracts, faults, hashes");
  command->require_subcommand(1);
  add_list_hashes(*command, program);
  for (const auto& what : kWhat) {
    auto* one = command->add_subcommand(what.name, fmt::format("list {}", what.name));
    auto json = std::make_shared<bool>(false);
    one->add_flag("--json", *json, "as JSON, for programs");
    one->callback([&what, json, &program] {
      program.selected = [&what, json] {
        // The exporter reads this one: everything needed to make the same problems.
        if (*json && std::string_view(what.name) == "fixtures")
          fmt::print("{}\n", fixtures_json());
        else if (*json)
          fmt::print("{}\n", to_json(what.rows()));
        else
          print(what.rows());
        return ExitCode::Passed;
      };
    });
  }
}

}  // namespace assay::cli
