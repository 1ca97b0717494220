#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "harness/contract/error_grid.h"
#include "reports/html/html_case.h"
#include "reports/html/html_page.h"
#include "reports/html/svg.h"
#include "reports/json.h"
#include "reports/wording.h"

namespace assay::html {
namespace {

/// Failing cases first: a reader of hundreds looks for those.
int rank(Mark kind) {
  switch (kind) {
    case Mark::Bad: return 0;
    case Mark::Doubt: return 1;
    case Mark::Absent: return 2;
    case Mark::Good: break;
  }
  return 3;
}

/// Bins of all maps of packed cases together. One costs up to two bytes, four bits of level and where in it
/// the worst element is: all of them are below 700 kB of a page.
constexpr std::int64_t kPackedBins = 250'000;
constexpr std::int64_t kFewestBins = 12;  // along a side

/// Bins along a side of maps in packed cases. Half as many of an error that was inherited: it looks as the
/// one before it.
std::int64_t packed_bins(const Report& report, const std::vector<bool>& in_full) {
  double maps = 0.0;
  for (std::size_t i = 0; i < report.cases.size(); ++i)
    for (const FieldResult& field : report.cases[i].fields)
      for (const Judgement* judgement : {&field.isolated, &field.chained})
        if (!in_full[i] && judgement->pattern) maps += inherited(report.cases[i], field) ? 0.25 : 1.0;
  const double side = std::sqrt(static_cast<double>(kPackedBins) / std::max(maps, 1.0));
  return std::clamp(static_cast<std::int64_t>(side), kFewestBins, kCoarseBins);
}

/// Of a case that is not in full the maps are coarse, and nothing else is drawn of its patterns.
CaseResult with_coarse_maps(CaseResult c, std::int64_t most) {
  for (FieldResult& field : c.fields)
    for (Judgement* judgement : {&field.isolated, &field.chained})
      if (judgement->pattern)
        judgement->pattern =
            ErrorPattern{coarser(judgement->pattern->map, inherited(c, field) ? most / 2 : most), {}, {}, {}};
  return c;
}

/// Sections as JSON: {"colours": [of levels], "pieces": [markup], "cases": {"c25": [which pieces]}}. Pieces
/// of one kind stand together, those that begin alike next to each other: what compresses them sees the last
/// 32 KiB only, and finds there what they have in common.
class PackedSections {
 public:
  void add(const std::string& id, std::vector<SectionPiece> pieces) {
    std::vector<Place>& places = cases_[id];
    for (SectionPiece& piece : pieces) {
      if (piece.markup.empty()) continue;
      if (!kinds_.contains(piece.kind)) order_.push_back(piece.kind);
      auto& alike = kinds_[piece.kind];
      places.push_back({piece.kind, alike.size()});
      alike.push_back(std::move(piece.markup));
    }
  }
  std::int64_t count() const { return std::ssize(cases_); }
  std::string json() const {
    nlohmann::ordered_json all = {{"colours", svg::level_colours()},
                                  {"pieces", nlohmann::json::array()},
                                  {"cases", nlohmann::json::object()}};
    std::map<std::string, std::vector<std::size_t>> stands;  // of each kind's pieces, in the order they came
    for (const std::string& kind : order_) {
      const std::vector<std::string>& alike = kinds_.at(kind);
      std::vector<std::size_t> sorted(alike.size());
      std::iota(sorted.begin(), sorted.end(), std::size_t{0});
      std::ranges::stable_sort(sorted, {}, [&](std::size_t i) -> const std::string& { return alike[i]; });
      stands[kind].resize(alike.size());
      for (const std::size_t i : sorted) {
        if (all["pieces"].empty() || all["pieces"].back() != alike[i]) all["pieces"].push_back(alike[i]);
        stands[kind][i] = all["pieces"].size() - 1;
      }
    }
    for (const auto& [id, places] : cases_) {
      auto& which = all["cases"][id] = nlohmann::json::array();
      for (const Place& place : places) which.push_back(stands.at(place.kind)[place.index]);
    }
    return all.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }

 private:
  struct Place {
    std::string kind;
    std::size_t index;
  };
  std::map<std::string, std::vector<std::string>> kinds_;
  std::vector<std::string> order_;
  std::map<std::string, std::vector<Place>> cases_;
};

std::string joined(const std::vector<SectionPiece>& pieces) {
  std::string out;
  for (const SectionPiece& piece : pieces) out += piece.markup;
  return out;
}

}  // namespace

Pages case_pages(const Report& report) {
  Pages pages;
  pages.order.resize(report.cases.size());
  std::iota(pages.order.begin(), pages.order.end(), std::size_t{0});
  std::ranges::stable_sort(pages.order, {},
                           [&](std::size_t i) { return rank(mark(report.cases[i].verdict)); });
  pages.in_full.assign(report.cases.size(), false);
  int passing = 0;
  int others = 0;
  for (const std::size_t i : pages.order) {
    const bool good = mark(report.cases[i].verdict) == Mark::Good;
    (good ? passing : others) += 1;
    pages.in_full[i] = good ? passing + others <= kDetailedCases : others <= kDetailedFailingCases;
  }
  pages.packed_bins = packed_bins(report, pages.in_full);
  PackedSections packed;
  for (std::size_t place = 0; place < pages.order.size(); ++place) {
    if (place == kCasesAtOnce) pages.sections += kLaterStart;
    const std::size_t i = pages.order[place];
    const CaseResult& c = report.cases[i];
    const bool good = mark(c.verdict) == Mark::Good;
    const bool full = pages.in_full[i];
    pages.sections += case_start(c, i, full && (!good || report.cases.size() == 1), !full);
    if (full)
      pages.sections += joined(case_rest(
          c, i, std::ssize(report.cases) <= kDetailedCases || good ? Detail::All : Detail::Failures));
    else
      packed.add(case_id(i), case_rest(with_coarse_maps(c, pages.packed_bins), i,
                                       good ? Detail::Figures : Detail::Packed));
    pages.sections += kCaseEnd;
  }
  if (pages.order.size() > kCasesAtOnce) pages.sections += kLaterEnd;
  if (packed.count() > 0)
    pages.sections = fmt::format(
        "<noscript><p class=\"remark\">{} cases are shown by their headlines: their details "
        "unfold with JavaScript.</p></noscript>{}",
        grouped_digits(packed.count()), pages.sections);
  pages.packed = packed.json();
  return pages;
}

std::string data_of(const Report& report, const Pages& pages) {
  Report brief = report;
  for (std::size_t i = 0; i < brief.cases.size(); ++i) {
    if (pages.in_full[i]) continue;
    brief.cases[i] = with_coarse_maps(std::move(brief.cases[i]), pages.packed_bins);
    for (FieldResult& field : brief.cases[i].fields) {
      field.vacuity.clear();
      for (Prediction* bits : {&field.isolated_bits, &field.chained_bits}) bits->first.reset();
      for (Judgement* judgement : {&field.isolated, &field.chained}) {
        if (std::isfinite(judgement->max_ratio))
          judgement->max_ratio = std::stod(fmt::format("{:.3g}", judgement->max_ratio));
        judgement->statistics = {};
        judgement->bounds = {};
        judgement->worst_by_expert.clear();
        judgement->rejected_by_expert.clear();
        judgement->worst_rejected.clear();
        judgement->worst.reset();
      }
    }
  }
  return to_json(brief, JsonLayout::Compact);
}

}  // namespace assay::html
