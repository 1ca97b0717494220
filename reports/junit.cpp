#include "reports/junit.h"

#include <fmt/format.h>
#include <algorithm>

#include "reports/escape.h"
#include "reports/wording.h"

namespace assay {
namespace {

struct Counts {
  std::int64_t tests = 0;
  std::int64_t failures = 0;
  std::int64_t skipped = 0;
};

void count(Verdict verdict, Counts& counts) {
  ++counts.tests;
  if (!compared(verdict))
    ++counts.skipped;
  else if (verdict != Verdict::Passed)
    ++counts.failures;
}

std::string judgement_line(const FieldResult& result, const Judgement& judgement, std::string_view way) {
  if (!compared(judgement.verdict)) return "";
  std::string line =
      fmt::format("{}: {}, {} {}rejected, {} differ from the rounded reference", way,
                  words(judgement.verdict), rejected_in_words(judgement),
                  judgement.tokens > 0 ? "" : "elements ", grouped_digits(judgement.mismatched));
  if (!judgement.where.empty()) line += ", " + judgement.where;
  if (has_ratio(result.field)) line += fmt::format(", worst ratio {}", ratio_text(judgement.max_ratio));
  if (judgement.worst) {
    const Element& e = *judgement.worst;
    const DType dtype = dtype_of(result);
    const auto bits = [&](std::uint32_t stored) {
      return shows_bits(dtype, e) ? fmt::format(" ({})", bits_text(dtype, stored)) : "";
    };
    line += fmt::format("\n  worst at {}: found {}{}, reference {}{}, accepted {} .. {}", place_text(e),
                        value_text(e.out), bits(e.out_bits), value_text(e.ref), bits(e.ref_bits),
                        value_text(e.low), value_text(e.high));
  }
  return line + "\n";
}

std::string field_body(const FieldResult& result, const CaseResult& one) {
  std::string body =
      judgement_line(result, result.isolated, "isolated") + judgement_line(result, result.chained, "chained");
  for (const auto& [way, bits] :
       {std::pair{"isolated", &result.isolated_bits}, std::pair{"chained", &result.chained_bits}})
    if (bits->available)
      body += fmt::format("bits as predicted, {}: {}{}{}\n", way, prediction_text(*bits),
                          bits->cause.empty() ? "" : "; ", bits->cause);
  for (const std::string& note : result.notes) body += note + "\n";
  if (!one.replay.empty()) body += fmt::format("replay: {}\n", one.replay);
  return body;
}

std::string field_message(const FieldResult& result) {
  std::string message = fmt::format("{} {}", name(result.field), words(result.verdict));
  const Judgement& shown =
      failed(result.isolated.verdict) || !failed(result.chained.verdict) ? result.isolated : result.chained;
  if (shown.rejected > 0)
    message += fmt::format(": {} {}rejected", rejected_in_words(shown), shown.tokens > 0 ? "" : "elements ");
  else if (!result.notes.empty())
    message += ": " + result.notes.front();
  return message;
}

std::string testcase(std::string_view name, const CaseResult& one, Verdict verdict,
                     const std::string& message, const std::string& body) {
  const std::string open = fmt::format("    <testcase name=\"{}\" classname=\"{}\"", escaped(name),
                                       escaped(one.problem + "." + one.candidate));
  if (verdict == Verdict::Passed) return open + "/>\n";
  if (!compared(verdict))
    return fmt::format("{}>\n      <skipped message=\"{}\"/>\n    </testcase>\n", open, escaped(message));
  return fmt::format("{}>\n      <failure type=\"{}\" message=\"{}\">{}</failure>\n    </testcase>\n", open,
                     assay::name(verdict), escaped(message), escaped(body));
}

std::string property(std::string_view name, std::string_view value) {
  return value.empty()
             ? ""
             : fmt::format("      <property name=\"{}\" value=\"{}\"/>\n", escaped(name), escaped(value));
}

std::string testsuite(const CaseResult& one, const Report& report, Counts& all) {
  Counts counts;
  std::string tests;
  Verdict worst_field = Verdict::NotMaterialised;
  for (const FieldResult& field : one.fields) {
    count(field.verdict, counts);
    worst_field = worst(worst_field, field.verdict);
    tests += testcase(name(field.field), one, field.verdict, field_message(field), field_body(field, one));
  }
  if (one.fields.empty() || worst_field < one.verdict) {
    count(one.verdict, counts);
    tests += testcase("case", one, one.verdict, one.headline, one.headline + "\n" + one.replay + "\n");
  }
  all.tests += counts.tests;
  all.failures += counts.failures;
  all.skipped += counts.skipped;
  return fmt::format(
             "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" "
             "time=\"{:.3f}\"{}>\n    <properties>\n",
             escaped(one.problem + ", " + one.candidate), counts.tests, counts.failures, counts.skipped,
             one.seconds,
             report.created.empty() ? "" : fmt::format(" timestamp=\"{}\"", escaped(report.created))) +
         property("verdict", name(one.verdict)) + property("headline", one.headline) +
         property("contract", one.contract) + property("producer", one.producer) +
         property("device", one.device) + property("seed", std::to_string(one.seed)) +
         property("replay", one.replay) + "    </properties>\n" + tests + "  </testsuite>\n";
}

}  // namespace

std::string render_junit(const Report& report) {
  Counts all;
  std::string suites;
  for (const CaseResult& one : report.cases) suites += testsuite(one, report, all);
  return fmt::format(
             "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"{}\" tests=\"{}\" "
             "failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{:.3f}\">\n",
             escaped(report.title), all.tests, all.failures, all.skipped, report.seconds) +
         suites + "</testsuites>\n";
}

}  // namespace assay
