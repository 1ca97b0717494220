// How verdicts, numbers and places are said: the words that text, JUnit and HTML share.
#pragma once

#include <string>
#include <string_view>

#include "harness/contract/digits.h"
#include "harness/contract/printable.h"
#include "harness/contract/report.h"

namespace assay {

/// A verdict in one of four kinds, each with a sign of its own so that colour is never alone.
enum class Mark { Good, Bad, Doubt, Absent };

Mark mark(Verdict verdict);
std::string_view sign(Mark mark);                   // "✔" "✘" "~" "-"
std::string_view words(Verdict verdict);            // "passed", "FAILED", "not written"
std::string_view words(const FieldResult& result);  // those of its verdict, or "not asked"
/// Whether the field was left out because one stage was asked for.
bool not_asked(const FieldResult& result);
/// Whether the field's own step is right, on upstream fields that are not: another field has the error.
bool inherited(const CaseResult& result, const FieldResult& field);

/// The tier of a flip; reports from before there were tiers know legal and not.
RoutingTier tier_of(const RoutingFlip& flip);
Mark mark(RoutingTier tier);
std::string_view words(RoutingTier tier);  // "tie", "admissible", "suspicious", "WRONG"

/// A wrong copy that would pass raises doubt where it would be judged alone, not chained.
Mark mark(const VacuityCheck& check);

/// Three significant digits or so: "0.482", "12.4", "1.2e+06", "inf".
std::string ratio_text(double ratio);

/// The shortest decimal digits that give the same double back.
std::string value_text(double value);

/// The stored bits as hexadecimal digits, as many as the dtype has: "0x3dfc".
std::string bits_text(DType dtype, std::uint32_t bits);

/// Of the result's elements; older reports do not say.
DType dtype_of(const FieldResult& result);

/// Whether the element was stored as bf16 or float32, so that its bits and their ulp mean something: integers
/// and float64 results have none.
bool shows_bits(DType dtype, const Element& element);

/// "row 17, col 3, expert 5, token 2"
std::string place_text(const std::vector<std::pair<std::string, std::int64_t>>& at);
std::string place_text(const Element& element);

/// "8.1 ms", "12.3 s", "4 min 05 s"
std::string seconds_text(double seconds);

/// "612 MiB"
std::string bytes_text(std::int64_t bytes);

/// "2,040 of 2,048 (5 undetermined, 3 differ)"; "not predicted" where there is no prediction.
std::string prediction_text(const Prediction& prediction);

/// What tables of fields write above a field and those that follow it: Unsloth's GroupedGEMMResult, what is
/// the router's, or the gradients.
std::string_view part_of_result(Field field);

/// Whether a field's elements are judged by an interval; otherwise they must match exactly.
bool has_ratio(Field field);

/// Elements of a field that were judged, isolated or chained.
std::int64_t elements(const FieldResult& result);

/// How far off the first stage with an error of its own is, where, and against what; else the first field
/// that lies outside what the inputs give. "" where nothing lies outside.
std::string distance_text(const CaseResult& result);

/// The two bounds of a field's judgement, a row each: its name, and what to say of it. Nothing where no
/// account was taken.
std::vector<std::pair<std::string, std::string>> bound_rows(const Judgement& judgement);

/// What a test observed or expects per element: "0.0312 %"; of a bias "-0.49 ulp".
std::string amount_text(const StatisticalTest& test, double amount);

/// "below 1e-9; fires below 2e-10"
std::string chance_text(const StatisticalTest& test);

/// "mean z² 1.003, of rounding alone 1.000; largest contract ulp 0.98 at row 3, col 5; independent: 2,048
/// elements"
std::string statistics_line(const Statistics& statistics);

/// "0: 1,200; 1: 30; 3-4: 2", and the name of one bucket: "0", "3-4".
std::string histogram_text(const Statistics& statistics);
std::string bucket_text(std::int64_t first);

/// "5 tokens took other experts than the reference: 3 exact ties, 2 admissible, 0 suspicious, 0 wrong; ..."
std::string routing_text(const CaseResult& result);

/// What a case or a report adds up to.
struct Totals {
  std::int64_t fields = 0;    // compared
  std::int64_t absent = 0;    // not written by the candidate, or not supported
  std::int64_t elements = 0;  // judged, each field once
  double max_ratio = 0.0;    // of the judgements of rounded fields, but those that a field passes in spite of
  Prediction isolated_bits;  // sums; `available` where any field's is
  Prediction chained_bits;
};
Totals totals(const CaseResult& result);
Totals totals(const Report& report);

/// "3 cases: 2 passed, 1 FAILED"
std::string case_counts_text(const Report& report);

}  // namespace assay
