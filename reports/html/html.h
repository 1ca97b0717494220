// A Report as one HTML file that needs no network and no script to be read.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/contract/finding.h"
#include "harness/contract/report.h"

namespace assay {

/// What a report is shown beside.
struct History {
  std::span<const Report> reports;       // earlier ones, oldest first
  std::vector<Finding> since_last = {};  // what changed since the last of them
};

/// The whole page: verdict in words, case by field matrix, a section per case, environment, and the report's
/// JSON as a data block. Tables and drawings are in the markup; the script adds filters, deep links, what
/// maps say of an element, copying and the download. A Content-Security-Policy forbids everything from
/// outside. All text of the report is escaped.
///
/// With earlier reports, a section says in words what changed since the last of them and draws each case's
/// worst error over time.
std::string render_html(const Report& report, const History& history = {});

/// So many failing and doubtful cases are in the markup in full, and passing ones as long as there are no
/// more cases than the second number. The rest are their headlines there, and the details in a deflated block
/// that the script unpacks: the file stays small enough to be mailed, and opens at once. Fields that passed
/// have a section of their own where the page has few cases.
inline constexpr int kDetailedFailingCases = 20;
inline constexpr int kDetailedCases = 6;

}  // namespace assay
