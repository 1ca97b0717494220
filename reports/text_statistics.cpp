#include "reports/text_statistics.h"

#include <fmt/format.h>

#include "reports/columns.h"
#include "reports/text_paint.h"
#include "reports/wording.h"

namespace assay {
namespace {

std::string tests_table(const Statistics& statistics, bool all, bool colour) {
  Columns table;
  table.aligns = {Align::Left,  Align::Left,  Align::Left, Align::Right,
                  Align::Right, Align::Right, Align::Left};
  table.rows.push_back({"", "test", "over", "observed", "expected", "limit", "chance of a legal run"});
  for (const StatisticalTest& test : statistics.tests) {
    if (!all && !test.beyond) continue;
    const Mark kind = !test.beyond ? Mark::Good : statistics.explained ? Mark::Absent : Mark::Doubt;
    const std::string of = test.members > 1 ? fmt::format(", worst of {}", grouped_digits(test.members)) : "";
    table.rows.push_back({painted(sign(kind), kind, colour), printable(test.measure),
                          printable(test.over) + of, amount_text(test, test.observed),
                          amount_text(test, test.expected), amount_text(test, test.limit),
                          chance_text(test)});
  }
  return table.rows.size() > 1 ? table.text(6) : "";
}

}  // namespace

std::string causes_text(const FieldResult& result, const TextOptions& options) {
  constexpr std::size_t kShown = 3;
  std::string out;
  const Cause* named = named_cause(result.causes);
  for (std::size_t i = 0; i < result.causes.size() && (i < kShown || options.verbose); ++i) {
    const Cause& cause = result.causes[i];
    const char* what = !names_the_error(cause) ? "    similar to: "
                       : &cause == named       ? "    cause: "
                                               : "    or:    ";
    out += wrapped(printable(in_words(cause)), what, static_cast<std::size_t>(options.width));
  }
  return out;
}

std::string statistics_text(const Judgement& judgement, std::string_view way, const TextOptions& options) {
  const Statistics& statistics = judgement.statistics;
  const auto width = static_cast<std::size_t>(options.width);
  const bool suspect = !statistics.suspicion.empty();
  // A field that its intervals refuse needs no chances to be argued about.
  if (statistics.units.empty() || ((!suspect || failed(judgement.verdict)) && !options.verbose)) return "";
  std::string out;
  if (suspect) {
    const Mark kind = statistics.explained ? Mark::Absent : Mark::Doubt;
    out += wrapped(painted(fmt::format("{} statistics: {}{}", way, printable(statistics.suspicion),
                                       statistics.explained ? "; yet every bit is as predicted" : ""),
                           kind, options.colour),
                   "    ", width);
  }
  if (options.verbose) {
    out += wrapped(printable(statistics_line(statistics)), fmt::format("    {}: ", way), width);
    if (!statistics.ulp_histogram.empty())
      out += wrapped(histogram_text(statistics), "      ulps from the rounded reference: ", width);
  }
  return out + tests_table(statistics, options.verbose, options.colour);
}

std::string vacuity_text(const FieldResult& result, const TextOptions& options) {
  std::string out;
  for (const VacuityCheck& check : result.vacuity) {
    const bool passes = check.outcome == VacuityOutcome::WouldPass;
    if (!passes && !options.verbose) continue;
    if (passes && check.chained && !options.verbose) continue;
    const Mark kind = mark(check);
    out += wrapped(painted(fmt::format("{}wrong copy, {}: {} ({})", check.chained ? "chained: " : "",
                                       printable(check.copy), name(check.outcome), printable(check.reason)),
                           kind, options.colour),
                   "    ", static_cast<std::size_t>(options.width));
  }
  return out;
}

}  // namespace assay
