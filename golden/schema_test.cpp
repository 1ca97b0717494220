// The schema's page and the field table agree.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "golden/schema.h"
#include "harness/contract/field.h"
#include "harness/contract/precision_contract.h"

using namespace assay;

namespace {

std::string stripped(std::string cell) {
  std::erase_if(cell, [](char c) { return c == ' ' || c == '`'; });
  return cell;
}

}  // namespace

TEST_SUITE("golden schema") {
  TEST_CASE("the contracts of golden/SCHEMA.md, which the exporter takes from there, are the code's") {
    std::ifstream page("golden/SCHEMA.md");
    REQUIRE(page);
    std::string listed;
    for (std::string line; std::getline(page, line);)
      if (line.starts_with("| `contract` |")) listed = line.substr(line.rfind(" | ") + 3);
    std::string expected = "where the producer rounds: ";
    for (const auto name : kContractNames)
      expected += fmt::format("{}`{}`", name == kContractNames.front() ? "" : ", ", name);
    CHECK(listed == expected + "; a candidate may say `auto` |");
  }

  TEST_CASE("the version of golden/SCHEMA.md, which Python takes from there, is the code's") {
    std::ifstream page("golden/SCHEMA.md");
    REQUIRE(page);
    const std::string text{std::istreambuf_iterator<char>(page), {}};
    CHECK(text.starts_with(fmt::format("# The file schema, version {}\n", kSchemaVersion)));
    CHECK(text.find(fmt::format("| `schema_version` | string | yes | `{}`;", kSchemaVersion)) !=
          std::string::npos);
  }

  TEST_CASE("the field table of golden/SCHEMA.md is the field table of the code") {
    std::ifstream page("golden/SCHEMA.md");  // tests run in the source folder
    REQUIRE(page);
    std::map<std::string, std::vector<std::string>> rows;
    for (std::string line; std::getline(page, line);) {
      if (!line.starts_with("| `")) continue;
      std::vector<std::string> cells;
      for (std::size_t at = 1; at < line.size();) {
        const auto end = std::min(line.find('|', at), line.size());
        cells.push_back(stripped(line.substr(at, end - at)));
        at = end + 1;
      }
      if (cells.size() >= 4 && find_field(cells[0])) CHECK(rows.emplace(cells[0], cells).second);
    }
    CHECK(rows.size() == kFieldCount);
    for (const auto& field : kFields) {
      const auto found = rows.find(std::string(field.name));
      REQUIRE_MESSAGE(found != rows.end(), field.name);
      std::string shape;
      for (const Dim dim : field.shape)
        if (dim != Dim::None) shape += fmt::format("{}{}", shape.empty() ? "" : ",", symbol(dim));
      CHECK(found->second[1] == name(field.group));
      CHECK(found->second[2] == fmt::format("[{}]", shape));
      CHECK(found->second[3] == row(field.dtype).name);
    }
  }
}
