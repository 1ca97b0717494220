#include "harness/judge/contract_fit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <map>
#include <tuple>

#include <fmt/format.h>

#include "harness/contract/chance_of_signs.h"
#include "harness/contract/layer.h"

namespace assay {
namespace {

constexpr double kChance = 1e-6;  // accepted probability of taking a rounding point for flipped by chance

/// A rounding point: the field whose isolated values tell whether it is there. Where the value is a field of
/// its own, that field is stored rounded in any case, so the stage that reads it tells what was read.
struct RoundingPoint {
  std::string_view what;
  Store PrecisionContract::* member;
  Field told_by;
};

constexpr RoundingPoint kPoints[] = {
    {"what the softmax reads of router_logits", &PrecisionContract::logits, Field::topk_weights},
    {"what SwiGLU reads of first_gemm", &PrecisionContract::first_gemm, Field::intermediate},
    {"silu", &PrecisionContract::silu, Field::intermediate},
    {"what the second product reads of intermediate", &PrecisionContract::intermediate, Field::second_gemm},
    {"what the merge reads of second_gemm", &PrecisionContract::second_gemm, Field::hidden_states},
    {"what the merge reads of topk_weights", &PrecisionContract::weights, Field::hidden_states},
    {"weight times value", &PrecisionContract::weighted, Field::hidden_states},
};

/// Elements that one prediction has right and another has not.
struct Balance {
  std::int64_t corrected = 0;
  std::int64_t spoilt = 0;
  Balance& operator+=(const Balance& other) {
    corrected += other.corrected;
    spoilt += other.spoilt;
    return *this;
  }
  bool beyond_chance() const { return log_chance_of_signs(corrected, spoilt) <= std::log(kChance); }
};

Balance balance(const std::vector<bool>& now, const std::vector<bool>& before) {
  Balance result;
  for (std::size_t i = 0; i < now.size(); ++i) {
    result.corrected += now[i] && !before[i];
    result.spoilt += before[i] && !now[i];
  }
  return result;
}

class Fit {
 public:
  Fit(const Problem& problem, const Candidate& candidate, const CaseResult& judged,
      const Accumulators& accumulators, const ReferenceFactory& reference, const Engine* engine)
      : problem_(problem),
        accumulators_(accumulators),
        factory_(reference),
        engine_(engine),
        start_(start(candidate.contract)) {
    upstream_.fields = &candidate.fields;
    for (const auto& result : judged.fields) {
      const bool integers = row(result.field).dtype == DType::Int32;
      const bool usable = candidate.fields.has(result.field) && result.verdict != Verdict::WrongShape &&
                          result.verdict != Verdict::WrongDtype &&
                          !(integers && result.verdict == Verdict::Failed);
      upstream_.usable[static_cast<std::size_t>(result.field)] = usable;
    }
  }

  ContractFit run() {
    // From the declared one, or hf, to another only if its prediction is right in more elements, beyond
    // chance.
    ContractFit fit{&start_, start_};
    for (const auto& named : kContracts) {
      if (named.unit_roundoff != kFp32UnitRoundoff || &named == fit.closest) continue;
      Balance all;
      for (const Field field : kEvaluationOrder)
        if (std::ranges::find(kPoints, field, &RoundingPoint::told_by) != std::end(kPoints) &&
            upstream_.has(field))
          all += balance(right(field, named), right(field, *fit.closest));
      if (all.beyond_chance()) fit.closest = &named;
    }
    fit.fitted = *fit.closest;
    // A flip may uncover another: two points can meet in one field.
    for (bool changed = true; changed;) {
      changed = false;
      for (const auto& point : kPoints) {
        PrecisionContract flipped = fit.fitted;
        flipped.*point.member = flipped.*point.member == Store::Bf16 ? Store::Unrounded : Store::Bf16;
        if (!better(flipped, fit.fitted, nullptr, point.told_by)) continue;
        // What is not rounded is not read from memory. If the field there is wrong, that alone corrects much;
        // the rounding has to matter beside it.
        if (flipped.*point.member == Store::Unrounded &&
            !better(flipped, fit.fitted, point.member, point.told_by))
          continue;
        fit.fitted = flipped;
        changed = true;
      }
      PrecisionContract other = fit.fitted;
      other.combine = other.combine == Combine::Fp32Sum ? Combine::Bf16ByExpert : Combine::Fp32Sum;
      if (!better(other, fit.fitted, nullptr, Field::hidden_states)) continue;
      fit.fitted = other;
      changed = true;
    }
    const auto distance = [&](const PrecisionContract& named) {
      return differing_points(fit.fitted, named).size();
    };
    for (const auto& named : kContracts)
      if (named.unit_roundoff == kFp32UnitRoundoff && distance(named) < distance(*fit.closest))
        fit.closest = &named;
    return fit;
  }

 private:
  static const PrecisionContract& start(std::string_view declared) {
    const auto named = std::ranges::find(kContracts, declared, &PrecisionContract::name);
    return named != kContracts.end() && named->unit_roundoff == kFp32UnitRoundoff ? *named
                                                                                  : kContracts.front();
  }

  /// The field that tells, or the first materialised one of the forward pass that descends from it: a
  /// contract is fitted to that pass.
  std::optional<Field> telling(Field field) const {
    for (const Field later : kEvaluationOrder)
      if ((later == field || descends_from(later, field)) && row(later).group == Group::Forward &&
          find_step(later)->stored != nullptr && upstream_.has(later))
        return later;
    return std::nullopt;
  }

  /// Which elements are as the contract predicts from what it reads; undetermined ones are. Fields of the
  /// point `unread` are recomputed and rounded, not read.
  const std::vector<bool>& right(Field field, const PrecisionContract& contract,
                                 Store PrecisionContract::* unread = nullptr) {
    const auto key = std::tuple(field, signature(contract), unread == nullptr ? -1 : index(unread));
    if (const auto known = known_.find(key); known != known_.end()) return known->second;
    Upstream read = upstream_;
    for (const StepRow& step : kSteps)  // what is not rounded is not read from memory
      if (step.stored != nullptr && step.made != field &&
          (contract.*step.stored == Store::Unrounded || step.stored == unread))
        read.usable[static_cast<std::size_t>(step.made)] = false;
    const auto predicted = factory_(problem_, read, contract, accumulators_, true, engine_)
                               ->predicted(field, Mode::Isolated, all_rows(field, problem_.sizes()));
    const auto out = upstream_.fields->at(field).as<Bf16>();
    std::vector<bool> as_predicted(out.size());
    for (std::size_t i = 0; i < out.size(); ++i)
      as_predicted[i] = predicted[i].undetermined || predicted[i].bits == out[i].bits;
    return known_.emplace(key, std::move(as_predicted)).first->second;
  }

  /// Whether `a` corrects more elements of the telling field than it spoils against `b`, beyond chance.
  bool better(const PrecisionContract& a, const PrecisionContract& b, Store PrecisionContract::* unread_by_b,
              Field told_by) {
    const auto field = telling(told_by);
    if (!field) return false;
    return balance(right(*field, a), right(*field, b, unread_by_b)).beyond_chance();
  }

  static int index(Store PrecisionContract::* member) {
    return static_cast<int>(std::ranges::find(kPoints, member, &RoundingPoint::member) - kPoints);
  }

  static std::array<int, std::size(kPoints) + 1> signature(const PrecisionContract& contract) {
    std::array<int, std::size(kPoints) + 1> all{};
    for (std::size_t i = 0; i < std::size(kPoints); ++i)
      all[i] = static_cast<int>(contract.*kPoints[i].member);
    all.back() = static_cast<int>(contract.combine);
    return all;
  }

  const Problem& problem_;
  Accumulators accumulators_;
  const ReferenceFactory& factory_;
  const Engine* engine_;
  const PrecisionContract& start_;
  Upstream upstream_;
  std::map<std::tuple<Field, std::array<int, std::size(kPoints) + 1>, int>, std::vector<bool>> known_;
};

}  // namespace

ContractFit fit_contract(const Problem& problem, const Candidate& candidate, const CaseResult& judged,
                         const Accumulators& accumulators, const ReferenceFactory& reference,
                         const Engine* engine) {
  return Fit(problem, candidate, judged, accumulators, reference, engine).run();
}

std::vector<std::string> differing_points(const PrecisionContract& found, const PrecisionContract& named) {
  std::vector<std::string> sentences;
  for (const auto& point : kPoints)
    if (found.*point.member != named.*point.member)
      sentences.push_back(
          found.*point.member == Store::Bf16
              ? fmt::format("{} is rounded to bf16, which {} does not do", point.what, named.name)
              : fmt::format("{} is not rounded to bf16, which {} does", point.what, named.name));
  if (found.combine != named.combine)
    sentences.push_back(
        found.combine == Combine::Fp32Sum
            ? fmt::format("slots are summed in fp32, where {} adds them in bf16 by ascending expert",
                          named.name)
            : fmt::format("slots are added in bf16 by ascending expert, where {} sums them in fp32",
                          named.name));
  return sentences;
}

}  // namespace assay
