// Pages without a script: what diff, invariance and regress share, in the look of a report.
#pragma once

#include <string>
#include <string_view>

#include "harness/contract/report.h"

namespace assay::html {

struct PlainPage {
  std::string_view kind;  // CSS class of the verdict
  std::string command;    // "assay diff"
  std::string created;
  std::string title;       // what was found, in words
  std::string hero;        // markup below it
  std::string body;        // markup: sections
  std::string_view first;  // anchor of the results
};
/// The file as a whole. `title`, `command` and `created` are escaped here.
std::string plain_page(const PlainPage& page);

/// What it ran on, and the command.
std::string environment_section(const Report& report);

/// A case as verify shows it, folded. `label` stands before it.
std::string case_as_judged(const CaseResult& result, std::size_t index, std::string_view label);

/// "3" above "regressions", in the hero's list of tiles.
std::string tile(std::string_view what, const std::string& value, const std::string& below);

}  // namespace assay::html
