#include "reports/html/html.h"

#include <fmt/format.h>
#include <algorithm>
#include <utility>

#include "harness/contract/error.h"
#include "reports/escape.h"
#include "reports/html/base64.h"
#include "reports/html/deflated.h"
#include "reports/html/html_assets.h"
#include "reports/html/html_case.h"
#include "reports/html/html_page.h"
#include "reports/html/html_plain.h"
#include "reports/wording.h"

namespace assay {
namespace {

std::string verdict_in_words(const Report& report) {
  const auto all = static_cast<std::int64_t>(report.cases.size());
  const auto bad = html::count_marks(report, Mark::Bad);
  const auto doubt = html::count_marks(report, Mark::Doubt);
  const auto good = html::count_marks(report, Mark::Good);
  const auto of_all = [all](std::int64_t part) {
    return fmt::format("{} of {} case{}", grouped_digits(part), grouped_digits(all), all == 1 ? "" : "s");
  };
  const auto open = std::ranges::count_if(report.cases, [](const CaseResult& c) {
    return c.verdict == Verdict::MissingGolden || c.verdict == Verdict::NotJudged;
  });
  if (bad == 1 && all == 1) {
    const auto& own = report.cases[0].first_own_error;
    return own ? fmt::format("{} is wrong: stage {}", name(*own), name(row(*own).stage))
           : report.cases[0].verdict == Verdict::Crashed  ? "The implementation crashed"
           : report.cases[0].verdict == Verdict::TimedOut ? "The implementation did not return in time"
                                                          : "The case failed";
  }
  if (bad > 0) return of_all(bad) + " failed";
  if (open > 0) return of_all(open) + " could not be judged";
  if (doubt > 0) return "Nothing failed, but " + of_all(doubt) + (doubt == 1 ? " is" : " are") + " in doubt";
  if (good == 0) return "Nothing was compared";
  return good == all
             ? (all == 1 ? "The case passed" : fmt::format("All {} cases passed", grouped_digits(all)))
             : of_all(good) + " passed, the others were not compared";
}

/// The case a reader should look at first: the worst, the earliest among equals.
const CaseResult* first_to_read(const Report& report) {
  const auto found = std::ranges::max_element(report.cases, {}, &CaseResult::verdict);
  return found == report.cases.end() ? nullptr : &*found;
}

std::size_t index_of(const Report& report, const CaseResult& one) {
  return static_cast<std::size_t>(&one - report.cases.data());
}

/// How many cases there are of each kind, each count a link to them.
std::string case_links(const Report& report) {
  struct Kind {
    Mark mark;
    std::string_view words;
  };
  std::string out;
  for (const Kind kind : {Kind{Mark::Bad, "failed"}, Kind{Mark::Doubt, "in doubt"},
                          Kind{Mark::Good, "passed"}, Kind{Mark::Absent, "not compared"}})
    if (const auto count = html::count_marks(report, kind.mark); count > 0)
      out += fmt::format("{}<a href=\"#show={}\">{} {}</a>", out.empty() ? "" : ", ",
                         html::css_class(kind.mark), grouped_digits(count), kind.words);
  return out;
}

using html::tile;

std::string bits_tile(const Totals& sum) {
  const Prediction& bits = sum.chained_bits.available ? sum.chained_bits : sum.isolated_bits;
  if (!bits.available) return "";
  std::string rest = sum.chained_bits.available ? "from the inputs alone" : "stage by stage";
  if (bits.differing > 0) rest += fmt::format("; {} differ", grouped_digits(bits.differing));
  if (bits.undetermined > 0) rest += fmt::format("; {} undetermined", grouped_digits(bits.undetermined));
  return tile("bits as predicted", grouped_digits(bits.as_predicted),
              fmt::format("of {}, {}", grouped_digits(bits.elements), rest));
}

std::string hero(const Report& report) {
  const Totals sum = totals(report);
  const Verdict verdict = report.verdict();
  std::string out = fmt::format(
      "<header class=\"hero {}\"><p class=\"kicker\">{} <time>{}</time></p><h1><span "
      "class=\"sign\">{}</span> {}</h1>",
      html::css_class(verdict), escaped(report.title), escaped(report.created), sign(mark(verdict)),
      verdict_in_words(report));
  const CaseResult* one = first_to_read(report);
  if (one != nullptr &&
      (report.cases.size() == 1 ||
       mark(one->verdict) != Mark::Good)) {  // of many that passed, none is worth singling out
    const std::size_t index = index_of(report, *one);
    out += fmt::format("<p class=\"lead\">{} (<a href=\"#{}\">{}, {}</a>)</p>", escaped(one->headline),
                       html::case_id(index), escaped(one->problem), escaped(one->candidate));
    if (const std::string distance = distance_text(*one); !distance.empty())
      out += fmt::format("<p class=\"distance\">{}</p>", escaped(distance));
    if (mark(one->verdict) == Mark::Bad) out += html::commands(*one);
  }
  out += "<dl class=\"tiles\">";
  out += tile("cases", grouped_digits(static_cast<std::int64_t>(report.cases.size())), case_links(report));
  if (one != nullptr && one->first_own_error)
    out += tile(
        "first own error",
        fmt::format("<a href=\"#{}\">{}</a>", html::field_id(index_of(report, *one), *one->first_own_error),
                    name(*one->first_own_error)),
        fmt::format("stage {}", name(row(*one->first_own_error).stage)));
  out += tile("fields compared", grouped_digits(sum.fields),
              sum.absent > 0 ? fmt::format("{} not written or unsupported", grouped_digits(sum.absent))
                             : "none left out");
  out += tile("elements compared", grouped_digits(sum.elements), "every one against its own interval");
  out +=
      tile("worst error", ratio_text(sum.max_ratio), "of what is allowed; 1 is the limit") + bits_tile(sum);
  out += tile("time", seconds_text(report.seconds),
              report.peak_memory_bytes > 0 ? "peak memory " + bytes_text(report.peak_memory_bytes) : "");
  return out + "</dl></header>\n";
}

/// The page with its markers replaced, in one pass: text that looks like a marker is left alone.
std::string filled(std::string_view page,
                   std::initializer_list<std::pair<std::string_view, std::string_view>> values) {
  std::string out;
  while (true) {
    const std::size_t start = page.find("{{");
    out += page.substr(0, start);
    if (start == std::string_view::npos) return out;
    const std::size_t end = page.find("}}", start);
    const std::string_view marker = page.substr(start + 2, end - start - 2);
    const auto found =
        std::ranges::find(values, marker, &std::pair<std::string_view, std::string_view>::first);
    if (found == values.end())
      throw InputError(fmt::format("expected a known marker in page.html, found {}", marker));
    out += found->second;
    page.remove_prefix(end + 2);
  }
}

}  // namespace

std::string render_html(const Report& report, const History& history) {
  const std::string title =
      fmt::format("{} {}: {}", sign(mark(report.verdict())), verdict_in_words(report), escaped(report.title));
  const std::string body = hero(report);
  const html::Pages pages = html::case_pages(report);
  const std::string cases = html::matrix(report, pages.order) + html::trend_section(report, history) +
                            pages.sections + html::environment_section(report);
  return filled(html::kPage, {{"title", title},
                              {"style", html::kStyle},
                              {"script", html::kScript},
                              {"hero", body},
                              {"cases", cases},
                              {"details", base64(deflated(pages.packed))},
                              {"data", base64(deflated(html::data_of(report, pages)))}});
}

}  // namespace assay
