#include <algorithm>
#include <map>
#include <tuple>

#include <fmt/format.h>

#include "harness/contract/counted_words.h"
#include "harness/contract/printable.h"
#include "reports/columns.h"
#include "reports/sweep_report.h"
#include "reports/text_paint.h"
#include "reports/wording.h"

namespace assay {
namespace {

/// One config on all its problems.
struct SweptConfig {
  std::string name;
  std::vector<const CaseResult*> cases;

  Verdict verdict() const {
    Verdict all = Verdict::NotMaterialised;
    for (const auto* one : cases) all = worst(all, one->verdict);
    return all;
  }
  std::ptrdiff_t not_passed() const {
    return std::ranges::count_if(cases, [](const auto* one) { return one->verdict != Verdict::Passed; });
  }
  double largest_error() const {
    double largest = 0.0;
    for (const auto* one : cases) largest = std::max(largest, totals(*one).max_ratio);
    return largest;
  }
  /// The first with the verdict.
  const CaseResult& worst_case() const {
    return **std::ranges::find(cases, verdict(), [](const auto* one) { return one->verdict; });
  }
};

std::vector<SweptConfig> worst_first(const std::vector<CaseResult>& cases) {
  std::vector<SweptConfig> configs;
  std::map<std::string_view, std::size_t> places;
  for (const auto& one : cases) {
    const auto [place, added] = places.try_emplace(swept_config(one), configs.size());
    if (added) configs.push_back({std::string(swept_config(one)), {}});
    configs[place->second].cases.push_back(&one);
  }
  std::ranges::stable_sort(configs, std::ranges::greater{}, [](const SweptConfig& one) {
    return std::tuple(one.verdict(), one.not_passed(), one.largest_error());
  });
  return configs;
}

/// "3 of 4" that passed; one case needs no count.
std::string passed_text(const SweptConfig& one) {
  const auto all = static_cast<std::ptrdiff_t>(one.cases.size());
  return fmt::format("{} of {}", all - one.not_passed(), all);
}

/// The part that all configs' names begin with, up to its '#': none where it is not the same of all.
std::string_view common_pipeline(const std::vector<SweptConfig>& configs) {
  const std::string_view first = configs.front().name;
  const auto begin = first.substr(0, first.rfind('#') + 1);
  const bool of_all =
      std::ranges::all_of(configs, [&](const auto& one) { return one.name.starts_with(begin); });
  return of_all ? begin : std::string_view();
}

/// What a case says, without the pipeline and config that a sentence of a plugin begins with.
std::string told(const CaseResult& result, const SweptConfig& of) {
  const std::string_view name = of.name;
  const auto config = fmt::format("{} ", name.substr(std::min(name.size(), name.rfind('#'))));
  const auto at = result.headline.find(config);
  return printable(
      fmt::format("{}: {}", result.problem,
                  at == std::string::npos ? result.headline : result.headline.substr(at + config.size())));
}

/// Cut to fit, with a sign that it was cut.
std::string cut(std::string text, std::size_t width) {
  if (display_width(text) <= width) return text;
  const auto inside = [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; };
  while (display_width(text) >= width) {
    while (inside(text.back())) text.pop_back();
    text.pop_back();
  }
  return text + "…";
}

}  // namespace

std::string_view swept_config(const CaseResult& result) {
  const std::string_view name = result.candidate;
  return name.substr(0, name.find(", ", name.rfind('#') == std::string_view::npos ? 0 : name.rfind('#')));
}

std::vector<CaseResult> sweep_order(std::vector<CaseResult> cases) {
  std::vector<std::size_t> order;
  for (const auto& config : worst_first(cases))
    for (const auto* one : config.cases) order.push_back(static_cast<std::size_t>(one - cases.data()));
  std::vector<CaseResult> ordered;
  for (const auto place : order) ordered.push_back(std::move(cases[place]));
  return ordered;
}

std::string sweep_table(const std::vector<CaseResult>& cases, const TextOptions& options) {
  if (cases.empty()) return "";
  const auto configs = worst_first(cases);
  const std::string_view pipeline = common_pipeline(configs);
  Columns table{{Align::Left, Align::Left, Align::Right, Align::Right, Align::Left},
                {{"", "config", "passed", "worst", "its worst case"}}};
  for (const auto& one : configs) {
    const Mark of_config = mark(one.verdict());
    table.rows.push_back(
        {painted(fmt::format("{} {}", sign(of_config), words(one.verdict())), of_config, options.colour),
         printable(one.name.substr(pipeline.size())), passed_text(one), ratio_text(one.largest_error()), ""});
  }
  constexpr std::size_t kLeast = 24;  // of a sentence
  const auto taken = table.width();
  const auto width = static_cast<std::size_t>(options.width);
  for (std::size_t i = 0; i < configs.size(); ++i)
    if (const CaseResult& one = configs[i].worst_case(); one.verdict != Verdict::Passed)
      table.rows[i + 1].back() = cut(told(one, configs[i]), std::max(kLeast, width - std::min(width, taken)));
  const std::string of =
      pipeline.empty() ? "" : fmt::format(" of {}", printable(pipeline.substr(0, pipeline.size() - 1)));
  return fmt::format("\n{}{}, the worst first\n{}\n", counted(std::ssize(configs), "config"), of,
                     table.text(2));
}

}  // namespace assay
