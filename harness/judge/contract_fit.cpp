#include "harness/judge/contract_fit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <map>
#include <tuple>

#include <fmt/format.h>

#include "harness/contract/chance_of_signs.h"
#include "harness/contract/layer.h"
#include "harness/contract/stored.h"
#include "harness/contract/upstream.h"

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
    {"silu", &PrecisionContract::silu, Field::intermediate},
    {"what the second product reads of intermediate", &PrecisionContract::intermediate, Field::second_gemm},
    {"what the merge reads of second_gemm", &PrecisionContract::second_gemm, Field::hidden_states},
    {"what the merge reads of topk_weights", &PrecisionContract::weights, Field::hidden_states},
    {"weight times value", &PrecisionContract::weighted, Field::hidden_states},
    {"d_hidden_states times second_gemm", &PrecisionContract::d_weighted, Field::d_topk_weights},
    {"d_intermediate times the up half", &PrecisionContract::d_silu, Field::d_first_gemm},
};

/// A point that contracts choose otherwise than by rounding or not.
struct OtherPoint {
  Field told_by;
  int (*get)(const PrecisionContract& contract);
  void (*set)(PrecisionContract& contract, int value);
  std::array<std::string_view, 4> found;  // one for each value: "slots are summed in fp32"
  std::array<std::string_view, 4> named;  // "where {} sums them in fp32"
};

template <auto member>
constexpr OtherPoint other_point(Field told_by, std::array<std::string_view, 4> found,
                                 std::array<std::string_view, 4> named) {
  return {told_by, [](const PrecisionContract& contract) { return static_cast<int>(contract.*member); },
          [](PrecisionContract& contract, int value) {
            contract.*member = static_cast<std::remove_reference_t<decltype(contract.*member)>>(value);
          },
          found, named};
}

constexpr std::array<std::string_view, 4> kOrdersNamed = {
    "where {} sums them in fp32", "where {} adds them in bf16 by ascending expert",
    "where {} adds them in bf16 by descending expert", "where {} adds them in bf16 in any order"};

constexpr OtherPoint kOtherPoints[] = {
    other_point<&PrecisionContract::swiglu_reads>(Field::intermediate,
                                                  {"what SwiGLU reads of first_gemm is rounded to bf16",
                                                   "what SwiGLU reads of first_gemm is not rounded to bf16"},
                                                  {"which {} does", "which {} does not do"}),
    other_point<&PrecisionContract::combine>(
        Field::hidden_states,
        {"slots are summed in fp32", "slots are added in bf16 by ascending expert",
         "slots are added in bf16 by descending expert", "slots are added in bf16 in any order"},
        kOrdersNamed),
    other_point<&PrecisionContract::weight_side>(
        Field::d_first_gemm,
        {"the weight is applied to the output's gradient",
         "the weight is applied after the product of d_hidden_states and down_proj"},
        {"where {} applies it to the output's gradient", "where {} applies it after the product"}),
    other_point<&PrecisionContract::d_weights_from>(
        Field::d_topk_weights,
        {"d_topk_weights is formed from second_gemm", "d_topk_weights is formed from the activation"},
        {"where {} forms it from second_gemm", "where {} forms it from the activation"}),
    other_point<&PrecisionContract::d_input_combine>(
        Field::d_experts_hidden_states,
        {"slots of dX are summed in fp32", "slots of dX are added in bf16 by ascending expert",
         "slots of dX are added in bf16 by descending expert", "slots of dX are added in bf16 in any order"},
        kOrdersNamed),
};

/// Fields that a step of the contract sees in registers, whatever the candidate wrote.
FieldFlags unread_under(const PrecisionContract& contract) {
  FieldFlags unread{};
  for (const FieldRow& field : kFields)
    for (const Field read : upstream_of(field.id, contract))
      if (!in_memory(field.id, read, contract)) unread[static_cast<std::size_t>(read)] = true;
  if (weight_after_product(contract)) unread[static_cast<std::size_t>(Field::d_second_gemm)] = true;
  return unread;
}

/// What an element says of a prediction. What is not determined says nothing: slots that are added in any
/// order would explain whatever there is.
enum class Says : std::uint8_t { Nothing, Right, Wrong };

/// Elements that one prediction has right and another has wrong.
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

Balance balance(const std::vector<Says>& now, const std::vector<Says>& before) {
  Balance result;
  for (std::size_t i = 0; i < now.size(); ++i) {
    result.corrected += now[i] == Says::Right && before[i] == Says::Wrong;
    result.spoilt += before[i] == Says::Right && now[i] == Says::Wrong;
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
      if (followed_rather(named, *fit.closest)) fit.closest = &named;
    }
    fit.fitted = *fit.closest;
    // A flip may uncover another: two points can meet in one field.
    for (bool changed = true; changed;) {
      changed = false;
      for (const auto& point : kPoints) {
        PrecisionContract flipped = fit.fitted;
        flipped.*point.member = flipped.*point.member == Store::Bf16 ? Store::Unrounded : Store::Bf16;
        if (!better(flipped, fit.fitted, point.told_by)) continue;
        fit.fitted = flipped;
        changed = true;
      }
      for (const auto& point : kOtherPoints)
        for (int value = 0; value < std::ssize(point.found) && !point.found[at(value)].empty(); ++value) {
          PrecisionContract flipped = fit.fitted;
          point.set(flipped, value);
          if (value == point.get(fit.fitted) || !better(flipped, fit.fitted, point.told_by)) continue;
          fit.fitted = flipped;
          changed = true;
        }
    }
    back_to_the_start(fit.fitted);
    const auto distance = [&](const PrecisionContract& named) {
      return differing_points(fit.fitted, named, has_gradients(*upstream_.fields)).size();
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

  static std::size_t at(int value) { return static_cast<std::size_t>(value); }

  /// The field that tells, or the first materialised one of its pass that descends from it. Gradients of
  /// experts' matrices tell nothing that no other field tells, and are large.
  std::optional<Field> telling(Field field) const {
    for (const Field later : kEvaluationOrder)
      if ((later == field || descends_from(later, field)) && row(later).group == row(field).group &&
          row(later).rows != RowsAre::ExpertMatrix && find_step(later)->stored != nullptr &&
          upstream_.has(later))
        return later;
    return std::nullopt;
  }

  /// Whether the field is stored in another type than the contract reads: its values are others then.
  bool in_other_type(Field field, const PrecisionContract& contract) const {
    return may_be_float32(field) && upstream_.has(field) &&
           unusable(field, upstream_.fields->at(field), problem_.sizes(), dtype_of(field, contract));
  }

  /// Which elements are as the contract predicts from what it reads. Of that `unread` is recomputed and
  /// rounded.
  const std::vector<Says>& right(Field field, const PrecisionContract& contract,
                                 const FieldFlags& unread = {}) {
    const auto key = std::tuple(field, signature(contract), unread);
    if (const auto known = known_.find(key); known != known_.end()) return known->second;
    Upstream read = upstream_;
    for (const FieldRow& other : kFields)
      if (other.id != field &&
          (unread[static_cast<std::size_t>(other.id)] || in_other_type(other.id, contract)))
        read.usable[static_cast<std::size_t>(other.id)] = false;
    const auto predicted = factory_(problem_, read, contract, accumulators_, true, engine_)
                               ->predicted(field, Mode::Isolated, all_rows(field, problem_.sizes()));
    const StoredSpan out(upstream_.fields->at(field), dtype_of(field, contract));
    std::vector<Says> all(out.size(), Says::Nothing);
    for (std::size_t i = 0; i < out.size(); ++i)
      if (!predicted[i].undetermined) all[i] = predicted[i].bits == out[i].bits() ? Says::Right : Says::Wrong;
    return known_.emplace(key, std::move(all)).first->second;
  }

  /// Whether `named` is right in more elements than `than`. A contract that leaves a field in registers does
  /// not see it when it is wrong, and corrects much by that alone: its roundings have to matter beside it,
  /// when the other does not read the field either.
  bool followed_rather(const PrecisionContract& named, const PrecisionContract& than) {
    std::vector<Field> told;
    const auto add = [&](Field told_by) {
      const auto field = telling(told_by);
      if (field && std::ranges::find(told, *field) == told.end()) told.push_back(*field);
    };
    for (const auto& point : kPoints) add(point.told_by);
    for (const auto& point : kOtherPoints) add(point.told_by);
    Balance all;
    Balance unread;
    for (const Field field : told) {
      all += balance(right(field, named), right(field, than));
      unread += balance(right(field, named), right(field, than, unread_under(named)));
    }
    return all.beyond_chance() && unread.beyond_chance();
  }

  /// Whether `a` corrects more elements of the telling field than it spoils against `b`, beyond chance, and
  /// when `b` does not read what `a` leaves in registers.
  bool better(const PrecisionContract& a, const PrecisionContract& b, Field told_by) {
    const auto field = telling(told_by);
    return field && balance(right(*field, a), right(*field, b)).beyond_chance() &&
           balance(right(*field, a), right(*field, b, unread_under(a))).beyond_chance();
  }

  /// A named contract brings points along that the data do not show: those are the first one's.
  void back_to_the_start(PrecisionContract& fitted) {
    const auto keep_if_told = [&](const PrecisionContract& back, Field told_by) {
      if (signature(back) != signature(fitted) && !better(fitted, back, told_by)) fitted = back;
    };
    for (const auto& point : kPoints) {
      PrecisionContract back = fitted;
      back.*point.member = start_.*point.member;
      keep_if_told(back, point.told_by);
    }
    for (const auto& point : kOtherPoints) {
      PrecisionContract back = fitted;
      point.set(back, point.get(start_));
      keep_if_told(back, point.told_by);
    }
  }

  using Signature = std::array<int, std::size(kPoints) + std::size(kOtherPoints)>;

  static Signature signature(const PrecisionContract& contract) {
    Signature all{};
    for (std::size_t i = 0; i < std::size(kPoints); ++i)
      all[i] = static_cast<int>(contract.*kPoints[i].member);
    for (std::size_t i = 0; i < std::size(kOtherPoints); ++i)
      all[std::size(kPoints) + i] = kOtherPoints[i].get(contract);
    return all;
  }

  const Problem& problem_;
  Accumulators accumulators_;
  const ReferenceFactory& factory_;
  const Engine* engine_;
  const PrecisionContract& start_;
  Upstream upstream_;
  std::map<std::tuple<Field, Signature, FieldFlags>, std::vector<Says>> known_;
};

}  // namespace

ContractFit fit_contract(const Problem& problem, const Candidate& candidate, const CaseResult& judged,
                         const Accumulators& accumulators, const ReferenceFactory& reference,
                         const Engine* engine) {
  return Fit(problem, candidate, judged, accumulators, reference, engine).run();
}

bool has_gradients(const FieldSet& fields) {
  return std::ranges::any_of(
      kFields, [&](const FieldRow& field) { return field.group == Group::Backward && fields.has(field.id); });
}

std::vector<PointApart> points_apart(const PrecisionContract& found, const PrecisionContract& named,
                                     bool backward) {
  const auto told = [&](const auto& point) { return backward || row(point.told_by).group == Group::Forward; };
  std::vector<PointApart> apart;
  for (const auto& point : kPoints) {
    // What is formed from the activation has no such products.
    const bool formed = point.member != &PrecisionContract::d_weighted ||
                        (!weights_from_activation(found) && !weights_from_activation(named));
    if (told(point) && formed && found.*point.member != named.*point.member)
      apart.push_back(
          {point.told_by,
           found.*point.member == Store::Bf16
               ? fmt::format("{} is rounded to bf16, which {} does not do", point.what, named.name)
               : fmt::format("{} is not rounded to bf16, which {} does", point.what, named.name)});
  }
  for (const auto& point : kOtherPoints)
    if (told(point) && point.get(found) != point.get(named))
      apart.push_back(
          {point.told_by,
           fmt::format("{}, {}", point.found[static_cast<std::size_t>(point.get(found))],
                       fmt::format(fmt::runtime(point.named[static_cast<std::size_t>(point.get(named))]),
                                   named.name))});
  return apart;
}

std::vector<std::string> differing_points(const PrecisionContract& found, const PrecisionContract& named,
                                          bool backward) {
  std::vector<std::string> sentences;
  for (PointApart& point : points_apart(found, named, backward))
    sentences.push_back(std::move(point.sentence));
  return sentences;
}

}  // namespace assay
