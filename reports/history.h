// Cases over several reports: verdicts, worst errors and times, for text and page.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "harness/contract/report.h"
#include "reports/text.h"

namespace assay {

struct FieldHistory {
  Field field{};
  // By run; none where the field was not there.
  std::vector<std::optional<Verdict>> verdicts = {};
  std::vector<double> worst = {};        // largest ratio, isolated and chained; NaN where there is none
  std::vector<std::int64_t> wrong = {};  // elements, isolated or chained, whichever is more
};

/// One case, oldest run first; the last is the report's own. Runs without it are left out.
struct CaseHistory {
  std::size_t index = 0;                  // of the case in the report
  std::vector<std::string> created = {};  // of each run's report
  std::vector<const CaseResult*> runs = {};
  std::vector<FieldHistory> fields = {};
};

/// Cases of `report` that any earlier one has too. They are paired by problem and candidate.
std::vector<CaseHistory> case_histories(const Report& report, std::span<const Report> earlier);

/// "FAILED since 2026-11-30T06:00:00Z, passed before", the newest first; empty where it never changed.
std::vector<std::string> verdict_changes(const std::vector<std::optional<Verdict>>& verdicts,
                                         const std::vector<std::string>& created);

/// "0.48", "exact", "3 wrong", "-": what one run says of a field.
std::string history_cell(const FieldHistory& field, std::size_t run);

/// Runs to show when there are many: the first and the last ones.
std::vector<std::size_t> runs_shown(std::size_t count);

/// A table per case: a column per run, verdict, a row per field, time; below it what changed when.
std::string render_history_text(const Report& report, std::span<const Report> earlier,
                                const TextOptions& options);

}  // namespace assay
