#include "harness/cli/mutate/detection_curves.h"

#include <algorithm>
#include <exception>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "harness/cli/environment.h"
#include "harness/cli/mutate/mutation.h"
#include "harness/cli/mutate/rivals.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

constexpr std::string_view kChanged = "any bit changes";
constexpr std::string_view kDeclared = "assay, accumulators declared";
constexpr std::string_view kOpen = "assay, nothing declared";

DetectionCurve empty_curve(const FaultFamily& family, std::int64_t seeds) {
  DetectionCurve curve{std::string(family.id),
                       std::string(family.sentence),
                       std::string(family.size),
                       {family.sizes.begin(), family.sizes.end()},
                       seeds,
                       {}};
  const auto rule = [&](std::string_view name) {
    curve.rules.push_back({std::string(name), std::vector<std::int64_t>(curve.sizes.size(), 0)});
  };
  for (const auto name : {kChanged, kDeclared, kOpen}) rule(name);
  for (const auto& rival : rivals()) rule(rival.id);
  return curve;
}

/// Adds what each rule says of every size on one problem.
void add_seed(const FaultFamily& family, std::uint64_t seed, DetectionCurve& curve) {
  const Ground ground = make_ground(family.fixture, "hf", Spoil::Nothing, seed);
  for (std::size_t i = 0; i < curve.sizes.size(); ++i) {
    const Fault fault = family.at(curve.sizes[i]);
    const Candidate candidate = faulty_candidate(fault, ground);
    const bool changed = !same_bits(candidate, ground.right);
    const auto accepting = accepting_rivals(candidate.fields, ground.answers);
    for (auto& rule : curve.rules) {
      if (rule.rule == kChanged)
        rule.found[i] += changed;
      else if (rule.rule == kDeclared)
        rule.found[i] += judge_declared(ground, candidate, fault.field).killed;
      else if (rule.rule == kOpen)
        rule.found[i] += judge_open(ground, candidate, fault.field).killed;
      else
        rule.found[i] += std::ranges::find(accepting, rule.rule) == accepting.end();
    }
  }
}

std::string size_text(std::optional<double> size) { return size ? fmt::format("{:.3g}", *size) : "never"; }

}  // namespace

std::optional<double> detected_from(const DetectionCurve& curve, const RuleCurve& rule, double share) {
  std::optional<double> from;
  for (std::size_t i = curve.sizes.size(); i-- > 0;) {
    if (static_cast<double>(rule.found[i]) < share * static_cast<double>(curve.seeds)) break;
    from = curve.sizes[i];
  }
  return from;
}

std::vector<DetectionCurve> detection_curves(const std::vector<std::string>& families, std::int64_t seeds,
                                             std::uint64_t first_seed) {
  std::vector<DetectionCurve> curves;
  for (const auto& family : fault_families()) {
    if (!families.empty() && std::ranges::find(families, family.id) == families.end()) continue;
    DetectionCurve sum = empty_curve(family, seeds);
    std::exception_ptr error;
    std::int64_t done = 0;
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t i = 0; i < seeds; ++i) {
      DetectionCurve part = empty_curve(family, seeds);
      try {
        add_seed(family, first_seed + static_cast<std::uint64_t>(i), part);
      } catch (...) {
#pragma omp critical
        error = std::current_exception();
      }
#pragma omp critical
      {
        for (std::size_t r = 0; r < sum.rules.size(); ++r)
          for (std::size_t s = 0; s < sum.sizes.size(); ++s) sum.rules[r].found[s] += part.rules[r].found[s];
        progress(fmt::format("{}: {} of {} seeds", family.id, ++done, seeds));
      }
    }
    progress_done();
    if (error) std::rethrow_exception(error);
    curves.push_back(std::move(sum));
  }
  return curves;
}

std::string text(const std::vector<DetectionCurve>& curves) {
  std::string out;
  for (const auto& curve : curves) {
    out += fmt::format("{}: {}, {} seeds; {} from which on a share of the seeds is found\n", curve.family,
                       curve.sentence, curve.seeds, curve.size);
    for (const auto& rule : curve.rules)
      out += fmt::format("  {:<30} 50 % {:>10}   99 % {:>10}\n", rule.rule,
                         size_text(detected_from(curve, rule, 0.5)),
                         size_text(detected_from(curve, rule, 0.99)));
  }
  return out;
}

std::string json(const std::vector<DetectionCurve>& curves, const std::string& command) {
  nlohmann::ordered_json json{{"command", command}, {"created", utc_now()}};
  for (const auto& [what, value] : environment()) json["environment"][what] = value;
  json["curves"] = nlohmann::json::array();
  for (const auto& curve : curves) {
    nlohmann::ordered_json one{{"family", curve.family},
                               {"sentence", curve.sentence},
                               {"size", curve.size},
                               {"seeds", curve.seeds},
                               {"sizes", curve.sizes}};
    one["rules"] = nlohmann::json::array();
    for (const auto& rule : curve.rules) {
      nlohmann::ordered_json of_rule{{"rule", rule.rule}, {"found", rule.found}};
      for (const auto& [label, share] :
           {std::pair("from_50_percent", 0.5), std::pair("from_99_percent", 0.99)}) {
        const auto from = detected_from(curve, rule, share);
        of_rule[label] = from ? nlohmann::ordered_json(*from) : nlohmann::ordered_json(nullptr);
      }
      one["rules"].push_back(std::move(of_rule));
    }
    json["curves"].push_back(std::move(one));
  }
  return json.dump(1) + "\n";
}

std::vector<DetectionCurve> read_detection_curves(const std::string& text) {
  try {
    std::vector<DetectionCurve> curves;
    const auto json = nlohmann::json::parse(text);
    for (const auto& one : json.at("curves")) {
      DetectionCurve curve{one.at("family"), one.at("sentence"), one.at("size"),
                           one.at("sizes"),  one.at("seeds"),    {}};
      for (const auto& rule : one.at("rules")) curve.rules.push_back({rule.at("rule"), rule.at("found")});
      curves.push_back(std::move(curve));
    }
    return curves;
  } catch (const nlohmann::json::exception& error) {
    throw InputError(
        fmt::format("expected detection curves as assay mutate --curves writes them: {}", error.what()));
  }
}

}  // namespace assay::cli
