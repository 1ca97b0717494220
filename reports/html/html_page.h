// The parts of the page that are about all cases.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "harness/contract/report.h"
#include "reports/wording.h"

namespace assay::html {

std::int64_t count_marks(const Report& report, Mark kind);

/// Rows and sections that a page has from the first. Browsers lay out a table whole: what comes later is text
/// in <noscript>, which is markup where nothing else would show it, and which the script puts in place once
/// the first are on the screen.
inline constexpr std::size_t kCasesAtOnce = 100;
inline constexpr std::string_view kLaterStart = "<noscript class=\"later\">";
inline constexpr std::string_view kLaterEnd = "</noscript>";

/// Cases in the order of the page.
using CaseOrder = std::vector<std::size_t>;

struct Pages {
  CaseOrder order;            // failing ones first, then those in doubt
  std::vector<bool> in_full;  // by case: its section is in the markup
  std::int64_t packed_bins;   // along a side of a map of the other cases
  std::string sections;       // markup: of other cases the headlines
  std::string packed;         // JSON: the rest of those, in pieces
};
Pages case_pages(const Report& report);

/// A row per case, a column per field that any case has.
std::string matrix(const Report& report, const CaseOrder& order);

/// The report as JSON. Of cases that are not in full it has the figures: the file is to be mailed.
std::string data_of(const Report& report, const Pages& pages);

}  // namespace assay::html
