#include "harness/cli/mutate/mutate_score.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "harness/cli/environment.h"
#include "harness/cli/mutate/rivals.h"
#include "harness/contract/counted_words.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

struct DetectorRow {
  std::string_view id;
  std::string_view words;
  bool Detectors::* by;
};
constexpr DetectorRow kDetectors[] = {
    {"interval_isolated", "interval, isolated", &Detectors::isolated},
    {"interval_chained", "interval, chained", &Detectors::chained},
    {"predicted_bits", "predicted bits", &Detectors::bits},
    {"statistics", "statistics", &Detectors::statistics},
    {"exact_integers", "exact integers", &Detectors::integers},
    {"selection", "selection", &Detectors::selection},
};

constexpr std::pair<const char*, std::int64_t MutationScore::*> kCounts[] = {
    {"planted", &MutationScore::planted},         {"equivalent", &MutationScore::equivalent},
    {"unreached", &MutationScore::unreached},     {"scored", &MutationScore::scored},
    {"killed", &MutationScore::killed},           {"right_stage", &MutationScore::right_stage},
    {"killed_open", &MutationScore::killed_open}, {"hints_expected", &MutationScore::hints_expected},
    {"hints_right", &MutationScore::hints_right},
};

bool scored(const Mutation& m) { return m.outcome != Outcome::Equivalent && m.outcome != Outcome::Unreached; }
bool missed(const Mutation& m, std::string_view rival) {
  return std::ranges::find(m.missed_by, rival) != m.missed_by.end();
}

std::string killers(const Detectors& by) {
  std::vector<std::string_view> words;
  for (const auto& row : kDetectors)
    if (by.*row.by) words.push_back(row.words);
  return fmt::format("{}", fmt::join(words, "; "));
}

std::string of(std::int64_t part, std::int64_t all) {
  return fmt::format("{} of {} ({:.1f} %)", part, all,
                     all == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(all));
}

nlohmann::ordered_json to_json(const Sentence& said) {
  nlohmann::ordered_json json{
      {"verdict", name(said.verdict)}, {"killed", said.killed}, {"right_stage", said.right_stage}};
  json["killed_by"] = nlohmann::json::array();
  for (const auto& row : kDetectors)
    if (said.by.*row.by) json["killed_by"].push_back(row.id);
  json["headline"] = said.headline;
  return json;
}

nlohmann::ordered_json to_json(const Mutation& m) {
  nlohmann::ordered_json json{{"fault", m.fault},
                              {"fixture", m.fixture},
                              {"contract", m.contract},
                              {"sums", name(m.sums)},
                              {"outcome", name(m.outcome)}};
  json["expected_stage"] = name(m.expected);
  json["declared"] = to_json(m.declared);
  json["undeclared"] = to_json(m.open);
  json["hint"] = {{"expected", m.hint_expected}, {"found", m.hint}, {"right", m.hint_right}};
  for (const auto& rival : rivals()) json["rivals"][rival.id] = missed(m, rival.id) ? "accepts" : "rejects";
  return json;
}

}  // namespace

MutationScore score(std::span<const Mutation> mutations) {
  MutationScore sum;
  for (const auto& m : mutations) {
    ++sum.planted;
    sum.equivalent += m.outcome == Outcome::Equivalent;
    sum.unreached += m.outcome == Outcome::Unreached;
    if (!scored(m)) continue;
    ++sum.scored;
    sum.killed += m.declared.killed;
    sum.right_stage += m.declared.killed && m.declared.right_stage;
    sum.killed_open += m.open.killed;
    sum.hints_expected += !m.hint_expected.empty();
    sum.hints_right += m.hint_right;
  }
  return sum;
}

std::vector<ScopeScore> scores_by_contract(std::span<const Mutation> mutations, const std::string& problems) {
  std::vector<ScopeScore> all;
  for (const auto& m : mutations) {
    const std::string its =
        m.sums == SumsOf::Recorded ? problems : fmt::format("{}, sums {}", problems, name(m.sums));
    if (std::ranges::any_of(
            all, [&](const ScopeScore& one) { return one.contract == m.contract && one.problems == its; }))
      continue;
    std::vector<Mutation> same;
    std::ranges::copy_if(mutations, std::back_inserter(same), [&](const Mutation& other) {
      return other.contract == m.contract && other.sums == m.sums;
    });
    all.push_back({m.contract, its, score(same)});
  }
  return all;
}

std::string scores_json(std::span<const ScopeScore> scores, const std::string& command) {
  nlohmann::ordered_json json{{"command", command}, {"created", utc_now()}};
  for (const auto& [what, value] : environment()) json["environment"][what] = value;
  json["scores"] = nlohmann::json::array();
  for (const auto& one : scores) {
    nlohmann::ordered_json row{{"contract", one.contract}, {"problems", one.problems}};
    for (const auto& [member, count] : kCounts) row[member] = one.score.*count;
    json["scores"].push_back(row);
  }
  return json.dump(1) + "\n";
}

std::vector<ScopeScore> read_scores(const std::string& text) {
  try {
    std::vector<ScopeScore> all;
    const auto json = nlohmann::json::parse(text);
    for (const auto& row : json.at("scores")) {
      ScopeScore one{row.at("contract"), row.at("problems"), {}};
      for (const auto& [member, count] : kCounts) one.score.*count = row.at(member);
      all.push_back(std::move(one));
    }
    return all;
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format("expected scores as assay mutate --scores writes them: {}", error.what()));
  }
}

ExitCode exit_code(const MutationScore& sum) {
  if (sum.planted == 0) return ExitCode::NothingCompared;
  const bool perfect = sum.unreached == 0 && sum.killed == sum.scored && sum.right_stage == sum.scored;
  return perfect ? ExitCode::Passed : ExitCode::Failed;
}

std::string line(const Mutation& m) {
  std::string out =
      fmt::format("{:<12} {:<32} on {:<18}", name(m.outcome), m.fault,
                  fmt::format("{}{}{}", m.fixture, m.contract == "hf" ? "" : ", " + m.contract,
                              m.sums == SumsOf::Recorded ? "" : fmt::format(", {}", name(m.sums))));
  if (m.outcome == Outcome::Unreached)
    return out + " no bit of any field changes: this fixture does not reach it\n";
  if (m.outcome == Outcome::Equivalent && m.declared.verdict == Verdict::NotMaterialised)
    return out + " legal, and no bit changes here\n";
  out += fmt::format(" {:<10} {}", name(m.declared.verdict), killers(m.declared.by));
  if (!m.open.killed)
    out += "; undeclared: passes";
  else if (m.open.by.statistics)
    out += "; undeclared: statistics too";
  if (m.hint_expected.empty()) return out + "\n";
  if (m.hint_right)
    out += fmt::format("; hint {}", m.hint);
  else
    out += fmt::format("; HINT {}, expected {}", m.hint.empty() ? "none" : m.hint, m.hint_expected);
  return out + "\n";
}

std::string totals_text(std::span<const Mutation> mutations) {
  const MutationScore sum = score(mutations);
  std::string out = fmt::format("{} planted, {} killed, {} in the right stage\n",
                                counted(sum.planted, "fault"), sum.killed, sum.right_stage);
  out += fmt::format("  kill score      {}{}{}\n", of(sum.killed, sum.scored),
                     sum.equivalent > 0 ? fmt::format(", {} equivalent left out", sum.equivalent) : "",
                     sum.unreached > 0 ? fmt::format(", {} UNREACHED", sum.unreached) : "");
  out += fmt::format("  right stage     {}\n", of(sum.right_stage, sum.scored));
  out +=
      fmt::format("  nothing declared {}: intervals and statistics alone\n", of(sum.killed_open, sum.scored));
  if (sum.hints_expected > 0)
    out += fmt::format("  right hint      {}\n", of(sum.hints_right, sum.hints_expected));
  out += "  each alone:\n";
  for (const auto& row : kDetectors) {
    const auto declared = std::ranges::count_if(
        mutations, [&](const Mutation& m) { return scored(m) && m.declared.by.*row.by; });
    const auto open =
        std::ranges::count_if(mutations, [&](const Mutation& m) { return scored(m) && m.open.by.*row.by; });
    out += fmt::format("    {:<20} {:>4} declared, {:>4} undeclared\n", row.words, declared, open);
  }
  for (const auto& rival : rivals()) {
    const auto found = std::ranges::count_if(
        mutations, [&](const Mutation& m) { return scored(m) && !missed(m, rival.id); });
    out += fmt::format("    {:<20} {:>4} on the final output\n", rival.id, found);
  }
  const auto invisible = missed_by_usual_rules(mutations);
  out += fmt::format("  {} that assay kills {} allclose(1e-2), the 95 % rule and cosine: {}\n",
                     counted(std::ssize(invisible), "fault"), invisible.size() == 1 ? "passes" : "pass",
                     fmt::join(invisible, ", "));
  for (const auto& m : mutations)
    if (m.outcome == Outcome::Survived || m.outcome == Outcome::WrongStage)
      out += fmt::format("  {} {} on {}: {}\n", name(m.outcome), m.fault, m.fixture, m.declared.headline);
  return out;
}

std::vector<std::string_view> missed_by_usual_rules(std::span<const Mutation> mutations) {
  std::vector<std::string_view> ids;
  for (const auto& m : mutations) {
    const bool all = std::ranges::all_of(
        rivals(), [&](const Rival& rival) { return !rival.usual || missed(m, rival.id); });
    if (scored(m) && m.declared.killed && all && std::ranges::find(ids, m.fault) == ids.end())
      ids.push_back(m.fault);
  }
  return ids;
}

std::string mutations_json(std::span<const Mutation> mutations, const std::string& command) {
  const MutationScore sum = score(mutations);
  nlohmann::ordered_json json{{"command", command}, {"created", utc_now()}};
  for (const auto& [what, value] : environment()) json["environment"][what] = value;
  json["totals"] = {{"planted", sum.planted},
                    {"equivalent", sum.equivalent},
                    {"unreached", sum.unreached},
                    {"scored", sum.scored},
                    {"killed", sum.killed},
                    {"right_stage", sum.right_stage},
                    {"killed_undeclared", sum.killed_open},
                    {"hints_expected", sum.hints_expected},
                    {"hints_right", sum.hints_right},
                    {"missed_by_usual_rules", missed_by_usual_rules(mutations)}};
  json["mutations"] = nlohmann::json::array();
  for (const auto& m : mutations) json["mutations"].push_back(to_json(m));
  return json.dump(1) + "\n";
}

}  // namespace assay::cli
