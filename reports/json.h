// A Report as JSON and back, without loss: schema "assay-report", version 1.
//
// Doubles have their shortest exact digits; NaN and infinities are the strings "NaN", "Infinity",
// "-Infinity". Integers beyond 2^53 are strings, because readers in other languages would round them; both
// forms are read. Fields and verdicts are written by name. Unknown members are ignored; an unknown version is
// refused.
#pragma once

#include <string>
#include <string_view>

#include "harness/contract/report.h"

namespace assay {

inline constexpr std::string_view kReportSchema = "assay-report";
inline constexpr int kReportVersion = 1;

enum class JsonLayout {
  Indented,
  Compact
};  // compact: one line, without the members that readers give their default

/// Bytes of strings that are not UTF-8 become U+FFFD.
std::string to_json(const Report& report, JsonLayout layout = JsonLayout::Indented);

/// Reads what `to_json` writes. `source` names the text in messages. Throws InputError with the byte position
/// where the text is no JSON, and with the member's path ("cases[0].fields[2].verdict") where it is not a
/// report.
Report report_from_json(std::string_view text, std::string_view source = "report");

}  // namespace assay
