// Sections of the HTML report.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "harness/contract/report.h"
#include "reports/html/html.h"

namespace assay::html {

/// Anchors: "c2" is the second case, "c2-second_gemm" one of its fields.
std::string case_id(std::size_t index);
std::string field_id(std::size_t index, Field field);

/// CSS class of a verdict: "good", "bad", "doubt", "absent".
std::string_view css_class(Verdict verdict);

/// "✘ FAILED" with sign and words in their colour.
std::string verdict_badge(Verdict verdict);

/// The verdict of a field in words, with what it means for the search: "FAILED, own error", "FAILED,
/// inherited".
std::string verdict_sentence(const FieldResult& result);

struct CaseOptions {
  bool open = true;     // whether the section starts unfolded
  bool details = true;  // drawings, routing, worst elements of passing fields; without: a table of figures
};
std::string case_section(const CaseResult& result, std::size_t index, const CaseOptions& options);

/// Worst elements with their number lines, experts, prediction and notes of one field.
std::string field_section(const FieldResult& result, std::size_t index);

/// Statistics of one way of judging: what fired, the histogram, every test with its expectation and limit.
std::string statistics_part(const Judgement& judgement);

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
