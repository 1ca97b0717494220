// Sections of the HTML report.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/contract/report.h"
#include "reports/html/html.h"
#include "reports/wording.h"

namespace assay::html {

/// Anchors: "c2" is the second case, "c2-second_gemm" one of its fields.
std::string case_id(std::size_t index);
std::string field_id(std::size_t index, Field field);

/// CSS class of a verdict: "good", "bad", "doubt", "absent".
std::string_view css_class(Verdict verdict);
std::string_view css_class(Mark mark);

/// "✘ FAILED" with sign and words in their colour.
std::string verdict_badge(Verdict verdict);

/// The verdict of a field in words, with what it means for the search: "FAILED, own error", "FAILED,
/// inherited".
std::string verdict_sentence(const FieldResult& result);

/// Where a case's section begins: verdict, names and headline, in an element that is left open.
std::string case_start(const CaseResult& result, std::size_t index, bool open, bool packed);
/// How much the rest of a section has.
enum class Detail {
  Figures,   // a table, and the fields that did not pass
  Packed,    // drawings and routing as well, maps left to the script; of what is inherited less
  Failures,  // maps embedded
  All,       // and the worst elements of fields that passed
};
/// The rest of it, but for the end of that element, in pieces; pieces of one kind are alike in every case.
struct SectionPiece {
  std::string kind;
  std::string markup;
};
std::vector<SectionPiece> case_rest(const CaseResult& result, std::size_t index, Detail detail);
inline constexpr std::string_view kCaseEnd = "</details>\n";

/// Pattern, worst elements with their number lines, prediction and notes of one field.
std::vector<SectionPiece> field_section(const CaseResult& c, const FieldResult& result, std::size_t index,
                                        Detail detail);

/// Where a field's elements are rejected: maps and values, then experts, blocks of K and the worst elements.
/// Nothing where none is.
std::vector<SectionPiece> pattern_part(const CaseResult& c, const FieldResult& result, std::size_t index,
                                       Detail detail);

/// The lines that repeat, explain and shrink a case, to be copied.
std::string commands(const CaseResult& result);

/// Statistics of one way of judging: what fired, the histogram, every test with its expectation and limit.
/// Where cases are many, none of what intervals refuse.
std::string statistics_part(const Judgement& judgement, Detail detail);

/// Hypotheses about a field's error with the share they explain.
std::string causes_part(const FieldResult& result);

/// What became of the wrong copies that were shown to the field's checks.
std::string vacuity_part(const FieldResult& result);

/// Tokens that took other experts, with gap, noise, bound and tier.
std::string flips_table(const CaseResult& result);

/// What changed since the last of `history`, and the worst error of every case over time; "" without a
/// history.
std::string trend_section(const Report& report, const History& history);

/// A command with a button to copy it.
std::string command_line(std::string_view label, std::string_view command);

}  // namespace assay::html
