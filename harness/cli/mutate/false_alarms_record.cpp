// Counts of judged correct runs as text and JSON, and the counts of several as one.
#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "harness/cli/environment.h"
#include "harness/cli/mutate/false_alarms.h"
#include "harness/cli/mutate/rivals.h"
#include "harness/contract/counted_words.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

constexpr std::size_t kAlarmsShown = 100;

std::map<std::string_view, std::int64_t> by_verdict(const FalseAlarms& result) {
  std::map<std::string_view, std::int64_t> counts;
  for (const auto& alarm : result.alarms) ++counts[name(alarm.verdict)];
  return counts;
}

Verdict read_verdict(std::string_view word) {
  for (int i = 0; i <= static_cast<int>(kWorstVerdict); ++i)
    if (name(static_cast<Verdict>(i)) == word) return static_cast<Verdict>(i);
  throw InputError(fmt::format("unknown verdict '{}'", word));
}

Alarm read_alarm(const nlohmann::json& json) {
  Alarm alarm;
  alarm.fixture = json.at("fixture");
  alarm.seed = json.at("seed");
  alarm.order = json.at("order");
  alarm.contract = json.at("contract");
  alarm.declared = json.at("declared");
  alarm.verdict = read_verdict(json.at("verdict").get<std::string>());
  alarm.headline = json.at("headline");
  return alarm;
}

/// Ascending, neighbours joined. Throws InputError where two share a seed.
std::vector<SeedRange> joined(std::vector<SeedRange> ranges) {
  std::ranges::sort(ranges, {}, &SeedRange::first);
  std::vector<SeedRange> all;
  for (const SeedRange& range : ranges) {
    const std::uint64_t end =
        all.empty() ? 0 : all.back().first + static_cast<std::uint64_t>(all.back().count);
    if (!all.empty() && range.first < end)
      throw InputError(fmt::format("seed {} is counted twice: name each result once", range.first));
    if (!all.empty() && range.first == end)
      all.back().count += range.count;
    else
      all.push_back(range);
  }
  return all;
}

}  // namespace

std::int64_t seed_count(const FalseAlarms& result) {
  std::int64_t count = 0;
  for (const SeedRange& range : result.seeds) count += range.count;
  return count;
}

ExitCode exit_code(const FalseAlarms& result) {
  if (result.judgements == 0) return ExitCode::NothingCompared;
  return result.alarms.empty() && result.unjudged == 0 ? ExitCode::Passed : ExitCode::Failed;
}

std::string text(const FalseAlarms& result) {
  std::string out = fmt::format(
      "{} ({} x {} of summation x {}), {}, {} compared: {}\n", counted(result.runs, "correct run"),
      counted(seed_count(result), "seed"), counted(std::ssize(result.orders), "order"),
      counted(std::ssize(result.contracts), "contract"), counted(result.judgements, "judgement"),
      counted(result.elements, "element"), counted(std::ssize(result.alarms), "alarm"));
  for (const auto& [verdict, count] : by_verdict(result)) out += fmt::format("  {} {}\n", count, verdict);
  constexpr std::size_t kShown = 20;
  for (std::size_t i = 0; i < std::min(kShown, result.alarms.size()); ++i) {
    const auto& a = result.alarms[i];
    out += fmt::format("  {} seed {}, {}, {}, {}: {}: {}\n", a.fixture, a.seed, a.order, a.contract,
                       a.declared ? "declared" : "undeclared", name(a.verdict), a.headline);
  }
  if (result.unjudged > 0) out += fmt::format("  {} judgements compared nothing\n", result.unjudged);
  out += "  correct runs rejected by rules of thumb:\n";
  for (const auto& rival : result.rivals)
    out += fmt::format(
        "    {:<16} {} of {} ({:.2f} %)\n", rival.rival, rival.runs, result.runs,
        result.runs == 0 ? 0.0 : 100.0 * static_cast<double>(rival.runs) / static_cast<double>(result.runs));
  return out;
}

std::string json(const FalseAlarms& result, const std::string& command) {
  nlohmann::ordered_json json{{"command", command}, {"created", utc_now()}};
  for (const auto& [what, value] : environment()) json["environment"][what] = value;
  json["seeds"] = seed_count(result);
  json["seed_ranges"] = nlohmann::json::array();
  for (const SeedRange& range : result.seeds)
    json["seed_ranges"].push_back({{"first", range.first}, {"count", range.count}});
  json["fixtures"] = result.fixtures;
  json["orders"] = result.orders;
  json["contracts"] = result.contracts;
  json["modes"] = {"accumulators declared: predicted bits are binding",
                   "nothing declared: intervals and statistics alone"};
  json["runs"] = result.runs;
  json["judgements"] = result.judgements;
  json["elements_compared"] = result.elements;
  json["judgements_without_elements"] = result.unjudged;
  json["alarms"] = result.alarms.size();
  json["alarms_by_verdict"] = nlohmann::json::object();
  for (const auto& [verdict, count] : by_verdict(result))
    json["alarms_by_verdict"][std::string(verdict)] = count;
  json["first_alarms"] = nlohmann::json::array();
  for (std::size_t i = 0; i < std::min(kAlarmsShown, result.alarms.size()); ++i) {
    const auto& a = result.alarms[i];
    json["first_alarms"].push_back({{"fixture", a.fixture},
                                    {"seed", a.seed},
                                    {"order", a.order},
                                    {"contract", a.contract},
                                    {"declared", a.declared},
                                    {"verdict", name(a.verdict)},
                                    {"headline", a.headline}});
  }
  for (const auto& rival : result.rivals)
    json["correct_runs_rejected_by_rules_of_thumb"][std::string(rival.rival)] = rival.runs;
  json["seconds"] = result.seconds;
  return json.dump(1) + "\n";
}

FalseAlarms read_false_alarms(const std::string& text) {
  try {
    const auto json = nlohmann::json::parse(text);
    FalseAlarms result;
    for (const auto& range : json.at("seed_ranges"))
      result.seeds.push_back({range.at("first"), range.at("count")});
    result.fixtures = json.at("fixtures");
    result.orders = json.at("orders");
    result.contracts = json.at("contracts");
    result.runs = json.at("runs");
    result.judgements = json.at("judgements");
    result.elements = json.at("elements_compared");
    result.unjudged = json.at("judgements_without_elements");
    for (const auto& alarm : json.at("first_alarms")) result.alarms.push_back(read_alarm(alarm));
    result.alarms.resize(json.at("alarms").get<std::size_t>());
    const auto& rejected = json.at("correct_runs_rejected_by_rules_of_thumb");
    for (const auto& rival : rivals())
      if (rejected.contains(rival.id))  // a rule may be younger than the counts
        result.rivals.push_back({rival.id, rejected.at(std::string(rival.id)).get<std::int64_t>()});
    result.seconds = json.at("seconds");
    return result;
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format("expected counts of correct runs as assay mutate --correct writes them: {}",
                                 error.what()));
  }
}

namespace {

std::vector<std::string> rules(const FalseAlarms& result) {
  std::vector<std::string> names;
  for (const auto& rival : result.rivals) names.emplace_back(rival.rival);
  return names;
}

}  // namespace

FalseAlarms merge_false_alarms(std::vector<FalseAlarms> parts) {
  if (parts.empty()) throw InputError("no counts of correct runs to merge");
  FalseAlarms all = std::move(parts.front());
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const FalseAlarms& part = parts[i];
    const auto same = [&](const char* what, const std::vector<std::string>& a,
                          const std::vector<std::string>& b) {
      if (a != b) throw InputError(fmt::format("counts of correct runs differ in their {}", what));
    };
    same("fixtures", all.fixtures, part.fixtures);
    same("orders", all.orders, part.orders);
    same("contracts", all.contracts, part.contracts);
    same("rules of thumb", rules(all), rules(part));
    all.seeds.insert(all.seeds.end(), part.seeds.begin(), part.seeds.end());
    all.seconds += part.seconds;
    add(all, part);
  }
  all.seeds = joined(std::move(all.seeds));
  std::ranges::stable_sort(all.alarms, {}, &Alarm::seed);
  return all;
}

}  // namespace assay::cli
