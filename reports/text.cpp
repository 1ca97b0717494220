#include "reports/text.h"

#include <fmt/format.h>
#include <algorithm>

#include "harness/contract/counted_words.h"
#include "reports/columns.h"
#include "reports/text_detail.h"
#include "reports/text_paint.h"
#include "reports/text_table.h"
#include "reports/wording.h"

namespace assay {
namespace {

constexpr std::size_t kTablesUpTo = 2;  // passing cases have tables when there are no more than this

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : " · ") + part;
  return text;
}

std::string case_header(const CaseResult& result, const TextOptions& options) {
  const auto width = static_cast<std::size_t>(options.width);
  std::vector<std::string> who;
  if (!result.producer.empty()) who.push_back("producer " + printable(result.producer));
  if (!result.device.empty()) who.push_back("device " + printable(result.device));
  who.push_back("contract " + printable(result.contract));
  if (!result.accumulators.empty()) who.push_back("accumulators: " + printable(result.accumulators));
  const std::string first = fmt::format("{} {}", sign(mark(result.verdict)), words(result.verdict));
  const std::string title =
      fmt::format("{}  {}\n", painted(first, mark(result.verdict), options.colour),
                  printable(result.problem == result.candidate
                                ? result.problem
                                : fmt::format("{}, {}", result.problem, result.candidate)));
  if (result.fields.empty())
    return title + wrapped(printable(result.headline), "  ",
                           width);  // nothing was judged: why is all there is to say
  const MoeConfig& c = result.config;
  std::vector<std::string> what = {
      "T " + counted(result.tokens, "token"), fmt::format("K {} of E {} experts", c.top_k, c.num_experts),
      fmt::format("H {}", c.hidden_size), fmt::format("I {}", c.moe_intermediate_size)};
  if (!c.norm_topk_prob) what.push_back("weights not renormalised");
  what.push_back(fmt::format("seed {}", result.seed));
  if (result.multiply_adds > 0) what.push_back(grouped_digits(result.multiply_adds) + " multiply-adds");
  what.push_back(seconds_text(result.seconds));
  return title + wrapped(joined(who), "  ", width) + wrapped(joined(what), "  ", width) +
         wrapped(printable(result.headline), "  ", width);
}

std::string bits_line(const Totals& sum) {
  if (!sum.isolated_bits.available && !sum.chained_bits.available) return "";
  std::string line = "bits as predicted: ";
  if (sum.isolated_bits.available) line += prediction_text(sum.isolated_bits) + " isolated";
  if (sum.isolated_bits.available && sum.chained_bits.available) line += "; ";
  if (sum.chained_bits.available) line += prediction_text(sum.chained_bits) + " chained";
  return line;
}

std::string case_block(const CaseResult& result, const TextOptions& options) {
  const auto width = static_cast<std::size_t>(options.width);
  std::string out = case_header(result, options);
  if (!result.fields.empty()) out.append("\n").append(field_table(result, options));
  if (const std::string bits = bits_line(totals(result)); !bits.empty())
    out.append("\n").append(wrapped(bits, "  ", width));
  if (result.reference_values > 0)
    out +=
        wrapped(fmt::format("reference values confirmed by the plain Eigen layer: {} of {}",
                            grouped_digits(result.confirmed_values), grouped_digits(result.reference_values)),
                "  ", width);
  out += field_details(result, options) + routing_details(result, options);
  for (const std::string& remark : result.remarks) out += wrapped(printable(remark), "  note: ", width);
  if (!result.replay.empty())
    out += fmt::format("  replay: {}\n", printable(result.replay));  // never wrapped: it is to be copied
  return out;
}

constexpr int kMostDetail = 2;

std::vector<std::string> line_header(int detail) {
  return {"",      "problem",        "candidate", detail > 0 ? "contract" : "", "fields", "elements",
          "worst", "predicted bits", "time"};
}

std::vector<std::string> line_cells(const CaseResult& result, const TextOptions& options, int detail) {
  const Totals sum = totals(result);
  const Prediction& bits = sum.chained_bits.available ? sum.chained_bits : sum.isolated_bits;
  const auto folder = detail > 1 ? std::string::npos : result.candidate.find_last_of('/');
  return {painted(sign(mark(result.verdict)), mark(result.verdict), options.colour),
          printable(result.problem),
          printable(folder == std::string::npos ? result.candidate : result.candidate.substr(folder + 1)),
          detail > 0 ? printable(result.contract) : "",
          grouped_digits(sum.fields),
          grouped_digits(sum.elements),
          ratio_text(sum.max_ratio),
          !bits.available                      ? "-"
          : bits.as_predicted == bits.elements ? "all"
                                               : prediction_text(bits),
          seconds_text(result.seconds)};
}

// Passing cases, a line each; a narrow terminal gives up the candidate's folder first and the contract next.
// `widths` are those of lines before, and of these afterwards.
std::string case_lines(const std::vector<const CaseResult*>& cases, const TextOptions& options, bool header,
                       std::vector<std::size_t>& widths) {
  for (int detail = kMostDetail;; --detail) {
    Columns lines;
    lines.aligns = {Align::Left,  Align::Left,  Align::Left, Align::Left, Align::Right,
                    Align::Right, Align::Right, Align::Left, Align::Right};
    lines.least = widths;
    if (header) lines.rows.push_back(line_header(detail));
    for (const CaseResult* result : cases) lines.rows.push_back(line_cells(*result, options, detail));
    if (detail > 0 && lines.width() > static_cast<std::size_t>(options.width)) continue;
    widths = lines.widths();
    return lines.text(0);
  }
}

std::string total_line(const Report& report, const TextOptions& options) {
  const Totals sum = totals(report);
  std::vector<std::string> parts = {case_counts_text(report),
                                    grouped_digits(sum.fields) + " fields" +
                                        (sum.absent > 0 ? fmt::format(" ({} not compared)", sum.absent) : ""),
                                    grouped_digits(sum.elements) + " elements", seconds_text(report.seconds)};
  if (report.peak_memory_bytes > 0) parts.push_back("peak memory " + bytes_text(report.peak_memory_bytes));
  const Verdict verdict = report.verdict();
  const std::string word = compared(verdict) ? std::string(words(verdict)) : "NOTHING COMPARED";
  const std::string outcome = fmt::format("{} {}", sign(mark(verdict)), word);
  std::string line = wrapped(joined(parts), painted(outcome, mark(verdict), options.colour) + "  ",
                             static_cast<std::size_t>(options.width));
  if (const std::string bits = bits_line(sum); !bits.empty() && report.cases.size() > 1)
    line += wrapped(bits, "  ", static_cast<std::size_t>(options.width));
  return line;
}

bool is_line(const CaseResult& result, const TextOptions& options, std::size_t cases) {
  return result.verdict == Verdict::Passed && !options.verbose && cases > kTablesUpTo;
}

std::string report_end(const Report& report, const TextOptions& options) {
  std::vector<std::string> environment;
  for (const auto& [what, value] : report.environment)
    environment.push_back(printable(what) + " " + printable(value));
  std::string out;
  if (!environment.empty()) out += wrapped(joined(environment), "", static_cast<std::size_t>(options.width));
  if (!report.command.empty()) out += printable(report.command) + "\n";
  return out + total_line(report, options);
}

}  // namespace

std::string TextStream::head(const Report& report) const {
  return report.title.empty()
             ? ""
             : wrapped(printable(report.title), "", static_cast<std::size_t>(options_.width)) + "\n";
}

std::string TextStream::add(const CaseResult& result) {
  const bool after_lines = in_lines_;
  in_lines_ = is_line(result, options_, planned_);
  if (in_lines_) return case_lines({&result}, options_, !after_lines, widths_);
  return (after_lines ? "\n" : "") + case_block(result, options_) + "\n";
}

std::string TextStream::tail(const Report& report) const {
  return (in_lines_ ? "\n" : "") + report_end(report, options_);
}

std::string render_text(const Report& report, const TextOptions& options) {
  std::string out = TextStream(options, report.cases.size()).head(report);
  std::vector<const CaseResult*> short_ones;
  const auto flush = [&] {
    std::vector<std::size_t> widths;
    if (!short_ones.empty()) out += case_lines(short_ones, options, true, widths) + "\n";
    short_ones.clear();
  };
  for (const CaseResult& result : report.cases) {
    if (is_line(result, options, report.cases.size())) {
      short_ones.push_back(&result);
      continue;
    }
    flush();
    out += case_block(result, options) + "\n";
  }
  flush();
  return out + report_end(report, options);
}

}  // namespace assay
