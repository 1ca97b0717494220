#include "harness/cli/mutate/mutate_evidence.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "golden/file_text.h"
#include "harness/cli/mutate/detection_curves.h"
#include "harness/cli/mutate/false_alarms.h"
#include "harness/cli/mutate/mutate_score.h"
#include "harness/cli/mutate/rivals.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

struct OurRule {
  std::string_view name;
  std::string_view sentence;
  bool (*catches)(const Mutation&);
};

// clang-format off
constexpr OurRule kOurs[] = {
    {"interval, isolated", "every element lies in its interval, computed from the candidate's own upstream fields", [](const Mutation& m) { return m.declared.by.isolated; }},
    {"interval, chained",  "every element lies in the interval carried on from the inputs",                         [](const Mutation& m) { return m.declared.by.chained; }},
    {"predicted bits",     "every bit is that of the declared accumulators",                                        [](const Mutation& m) { return m.declared.by.bits; }},
    {"statistics",         "mismatches, energy and bias are those of legal implementations",                        [](const Mutation& m) { return m.declared.by.statistics || m.open.by.statistics; }},
    {"exact integers",     "counts, indices and the choice of experts follow from the candidate's own logits",      [](const Mutation& m) { return m.declared.by.integers || m.declared.by.selection; }},
    {"assay, undeclared",  "intervals, statistics and integers together: nothing is declared, no GPU is named",     [](const Mutation& m) { return m.open.killed; }},
    {"assay",              "all of them",                                                                           [](const Mutation& m) { return m.declared.killed; }},
};
// clang-format on

std::string share(std::int64_t part, std::int64_t all) {
  return fmt::format("{} of {} ({:.2f} %)", part, all,
                     all == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(all));
}

void add_correct_runs(const FalseAlarms& measured, Sensitivity& all) {
  for (auto& rule : all.rules) {
    if (rule.name == "assay")
      rule.wrongly = fmt::format("{} alarms in {} judgements", measured.alarms.size(), measured.judgements);
    const auto found = std::ranges::find(measured.rivals, rule.name, &FalseAlarms::RivalFails::rival);
    if (found != measured.rivals.end()) rule.wrongly = share(found->runs, measured.runs);
  }
  all.facts.emplace_back("false alarms",
                         fmt::format("{} in {} judgements of {} correct runs", measured.alarms.size(),
                                     measured.judgements, measured.runs));
}

void add_curves(const std::vector<DetectionCurve>& curves, Sensitivity& all) {
  for (const auto& curve : curves) {
    Sensitivity::Curve drawn{curve.sentence, curve.size, curve.sizes, curve.seeds, {}};
    for (const auto& rule : curve.rules) {
      Sensitivity::Line line{rule.rule,
                             {},
                             detected_from(curve, rule, 0.5),
                             detected_from(curve, rule, 0.99),
                             rule.rule.starts_with("assay")};
      for (const auto found : rule.found)
        line.share.push_back(
            curve.seeds == 0 ? 0.0 : static_cast<double>(found) / static_cast<double>(curve.seeds));
      drawn.lines.push_back(std::move(line));
    }
    all.curves.push_back(std::move(drawn));
  }
}

void add_scope(const ScopeScore& measured, Sensitivity& all) {
  const auto& s = measured.score;
  const std::string planted =
      fmt::format("{}{}", s.planted, s.equivalent == 0 ? "" : fmt::format(", {} legal", s.equivalent));
  all.scopes.push_back({measured.contract, measured.problems, planted, share(s.killed, s.scored),
                        share(s.right_stage, s.scored), share(s.killed_open, s.scored),
                        share(s.hints_right, s.hints_expected)});
}

Sensitivity::Fault summary(const FaultRow& row, std::span<const Mutation> mutations) {
  Sensitivity::Fault fault;
  fault.id = row.id;
  fault.sentence = row.sentence;
  fault.stage = name(row.shows_in());
  fault.caught.assign(std::size(kOurs) + rivals().size(), 0);
  for (const auto& m : mutations) {
    if (m.fault != row.id) continue;
    ++fault.problems;
    for (std::size_t i = 0; i < std::size(kOurs); ++i) fault.caught[i] += kOurs[i].catches(m);
    for (std::size_t i = 0; i < rivals().size(); ++i)
      fault.caught[std::size(kOurs) + i] +=
          m.outcome != Outcome::Unreached &&
          std::ranges::find(m.missed_by, rivals()[i].id) == m.missed_by.end();
    if (m.outcome != Outcome::Killed) fault.note = name(m.outcome);
  }
  return fault;
}

}  // namespace

Sensitivity sensitivity(std::span<const Mutation> mutations,
                        const std::vector<std::filesystem::path>& evidence, const std::string& command) {
  Sensitivity all;
  all.command = command;
  for (const auto& rule : kOurs)
    all.rules.push_back({std::string(rule.name), true, std::string(rule.sentence), ""});
  for (const auto& rival : rivals())
    all.rules.push_back({std::string(rival.id), false, std::string(rival.sentence), ""});
  for (const auto& row : faults()) {
    auto fault = summary(row, mutations);
    if (fault.problems > 0) all.faults.push_back(std::move(fault));
  }
  const MutationScore sum = score(mutations);
  const auto invisible = missed_by_usual_rules(mutations);
  all.facts = {{"faults", fmt::format("{}, planted {} times", all.faults.size(), sum.planted)},
               {"killed", share(sum.killed, sum.scored)},
               {"in the right stage", share(sum.right_stage, sum.scored)},
               {"killed with nothing declared", share(sum.killed_open, sum.scored)},
               {"cause named rightly", share(sum.hints_right, sum.hints_expected)},
               {"killed, yet accepted by allclose(1e-2), the 95 % rule and cosine",
                fmt::format("{} faults", invisible.size())}};
  for (const auto& one : scores_by_contract(mutations, std::string(kProblemsOfTable))) add_scope(one, all);
  for (const auto& path : evidence) {
    const std::string text = file_text(path, kMostEvidence);
    if (text.find("\"curves\"") != std::string::npos)
      add_curves(read_detection_curves(text), all);
    else if (text.find("\"scores\"") != std::string::npos)
      for (const auto& one : read_scores(text)) add_scope(one, all);
    else
      add_correct_runs(read_false_alarms(text), all);
  }
  return all;
}

}  // namespace assay::cli
