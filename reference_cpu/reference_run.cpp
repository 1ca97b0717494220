#include "reference_cpu/reference_run.h"

#include <algorithm>

#include <fmt/format.h>

#include "harness/contract/error.h"
#include "harness/contract/subproblem.h"
#include "harness/contract/upstream.h"
#include "harness/host/phase_timer.h"
#include "reference_cpu/bound_account.h"
#include "reference_cpu/causes/causes.h"
#include "reference_cpu/product/product.h"
#include "reference_cpu/product/split_search.h"
#include "reference_cpu/stages.h"

namespace assay {
namespace {

/// Rounded fields each stage reads besides the problem and the routing.
std::span<const Field> upstream_of(Field field) {
  static constexpr Field logits[] = {Field::router_logits}, first[] = {Field::first_gemm},
                         middle[] = {Field::intermediate}, second[] = {Field::second_gemm},
                         last[] = {Field::hidden_states_unpermute, Field::topk_weights};
  switch (field) {
    case Field::topk_weights: return logits;
    case Field::intermediate: return first;
    case Field::second_gemm: return middle;
    case Field::hidden_states_unpermute: return second;
    case Field::hidden_states: return last;
    default: return {};
  }
}

template <class A>
struct Memo {
  std::array<std::optional<Values<A>>, kFieldCount> stored[2];  // by Mode: values after storing
};

constexpr std::int64_t kTrialWork =
    std::int64_t{1} << 26;  // multiply-adds of one hypothesis about a field that was not written
constexpr std::size_t kTrialExpertBytes = std::size_t{1} << 29;

class ReferenceRun final : public Reference {
 public:
  ReferenceRun(const Problem& problem, const Upstream& upstream, const PrecisionContract& contract,
               const Accumulators& accumulators, bool predict, const Fault& fault = {})
      : upstream_(upstream), predict_(predict) {
    layer_.fault = fault;
    layer_.problem = &problem;
    layer_.contract = &contract;
    layer_.accumulators = layer_.declared = accumulators;
    isolated_ = layer_;  // the selection may need the logits
    layer_.routing = get_token_counts_and_gather_indices(problem.config, selection());
    isolated_.routing = layer_.routing;
    if (upstream.has(Field::gather_indices)) {
      const auto gather = upstream.fields->at(Field::gather_indices).as<std::int32_t>();
      isolated_.routing.gather.assign(gather.begin(), gather.end());
    }
  }

  LargeVector<Interval> bounded(Field field, Mode mode) override {
    const PhaseTimer timer(fmt::format("bounded {}", name(field)));
    return evaluated<Bounded>(field, mode);
  }

  LargeVector<PredictedBits> predicted(Field field, Mode mode) override {
    if (!predict_) return {};
    const PhaseTimer timer(fmt::format("predicted {}", name(field)));
    auto values = evaluated<Predicted>(field, mode);
    if (mode == Mode::Isolated && resolve_split(field, values)) values = evaluated<Predicted>(field, mode);
    store_field<Predicted>(field, layer_, values);
    LargeVector<PredictedBits> bits(values.size());
#pragma omp parallel for schedule(static)
    for (std::size_t i = 0; i < values.size(); ++i)
      bits[i] = {round_to_bf16(values[i].value).bits, values[i].undetermined};
    return bits;
  }

  std::vector<std::int32_t> expected_integers(Field field) override {
    if (field == Field::token_counts_by_expert) return layer_.routing.counts;
    if (field == Field::gather_indices) return layer_.routing.gather;
    throw InputError(fmt::format("{} is not an exact integer field", name(field)));
  }

  std::vector<std::int32_t> predicted_selection(Mode mode, std::vector<bool>& undetermined_tokens) override {
    return select_experts(layer(mode), value<Predicted>(Field::router_logits, mode), undetermined_tokens);
  }

  Store store(Field field) const override { return store_of(field, *layer_.contract); }

  BoundAccount bound_account(Field field, Mode mode, std::span<const std::int64_t> elements) override {
    const bool isolated = mode == Mode::Isolated;
    const bool carries = isolated ? !isolated_from(field).empty() : !upstream_of(field).empty();
    return assay::bound_account(field, layer(mode), isolated ? upstream_ : Upstream{}, carries, elements);
  }

  bool same_in_both_modes(Field field) const override {
    if (field == Field::first_gemm) return isolated_.routing.gather == layer_.routing.gather;
    return field == Field::router_logits;
  }

  std::string isolated_from(Field field) const override {
    std::string missing;
    for (const Field need : unwritten_before(field))
      missing += fmt::format("{}{}", missing.empty() ? "" : ", ", name(need));
    return missing;
  }

  const Routing& routing() const override { return layer_.routing; }

  std::vector<Cause> causes(Field field) override {
    if (!upstream_.has(field) || upstream_.fields->at(field).size() == 0) return {};
    const Evidence own = evidence(field);
    auto causes = find_causes(own);
    const auto unwritten = unwritten_before(field);
    if (unwritten.empty() || (!causes.empty() && causes.front().every_bit)) return causes;
    for (auto& cause : causes_in(unwritten, own)) {
      // Of two that explain equally much, the one in the field itself supposes less.
      const auto place =
          std::ranges::find_if(causes, [&](const Cause& other) { return other.explained < cause.explained; });
      causes.insert(place, std::move(cause));
    }
    if (causes.size() > kListedCauses) causes.resize(kListedCauses);
    return causes;
  }

  std::string accumulator(Field field) const override {
    if (field == Field::router_logits) return to_string(layer_.accumulators.router);
    if (field == Field::first_gemm) return to_string(layer_.accumulators.gate_up);
    if (field == Field::second_gemm) return to_string(layer_.accumulators.down);
    return "";
  }

 private:
  /// The rounded fields between the last ones that the candidate wrote and this one, the nearest first.
  std::vector<Field> unwritten_before(Field field) const {
    std::vector<Field> missing;
    for (const Field need : upstream_of(field)) {
      if (upstream_.has(need)) continue;
      missing.push_back(need);
      const auto further = unwritten_before(need);
      missing.insert(missing.end(), further.begin(), further.end());
    }
    return missing;
  }

  Evidence evidence(Field field) {
    const auto bounded = evaluate<Bounded>(field, Mode::Isolated);
    Evidence evidence = gather_evidence(field, isolated_, upstream_.fields->at(field).as<Bf16>(),
                                        evaluate<Predicted>(field, Mode::Isolated), bounded);
    for (const Field read : upstream_of(field))
      evidence.inputs[static_cast<std::size_t>(read)] = &value<Predicted>(read, Mode::Isolated);
    if (field == Field::hidden_states &&
        upstream_.has(Field::router_logits))  // to try weights before their rounding
      evidence.inputs[static_cast<std::size_t>(Field::router_logits)] =
          &value<Predicted>(Field::router_logits, Mode::Isolated);
    return evidence;
  }

  /// Causes in fields that the candidate did not write: the layer is run again with each, on some tokens
  /// where it is large.
  std::vector<Cause> causes_in(std::span<const Field> unwritten, const Evidence& whole_evidence) {
    const Sizes sizes = layer_.problem->sizes();
    const auto& config = sizes.config;
    Part part = whole(sizes);
    part.tokens = tokens_to_try(whole_evidence,
                                std::max<std::int64_t>(1, kTrialWork / (config.top_k * config.hidden_size *
                                                                        config.moe_intermediate_size * 3)));
    const auto fields = subfields(*upstream_.fields, sizes, layer_.routing.selected, part);
    if (!fields) return {};
    Problem problem = subproblem(*layer_.problem, part);
    problem.experts = cached_experts(problem.experts, kTrialExpertBytes);
    const Upstream upstream = usable_upstream(problem, *fields);
    const auto run = [&](const Fault& fault) {
      return ReferenceRun(problem, upstream, *layer_.contract, layer_.accumulators, true, fault);
    };
    ReferenceRun right = run({});
    right.layer_.declared = right.isolated_.declared = layer_.declared;
    const Field field = whole_evidence.field;
    const UnwrittenTrials trials{
        [&](const Fault& fault) { return run(fault).template evaluate<Predicted>(field, Mode::Isolated); },
        std::ssize(part.tokens) < sizes.tokens};
    return find_causes(right.evidence(field), trials, unwritten);
  }

  const Layer& layer(Mode mode) const { return mode == Mode::Isolated ? isolated_ : layer_; }

  /// The candidate's routing where it is usable, else the reference's own.
  std::vector<std::int32_t> selection() {
    if (upstream_.has(Field::selected_experts)) {
      const auto selected = upstream_.fields->at(Field::selected_experts).as<std::int32_t>();
      return {selected.begin(), selected.end()};
    }
    std::vector<bool> undetermined;
    if (predict_)
      return select_experts(layer_, value<Predicted>(Field::router_logits, Mode::Isolated), undetermined);
    return select_experts(layer_, value<Bounded>(Field::router_logits, Mode::Isolated));
  }

  Accumulator* accumulator_of(Field field) {
    if (field == Field::router_logits) return &layer_.accumulators.router;
    if (field == Field::first_gemm) return &layer_.accumulators.gate_up;
    if (field == Field::second_gemm) return &layer_.accumulators.down;
    return nullptr;
  }

  /// cuBLAS chooses how it splits K: `hopper` stands, or the one split that explains the whole field. True if
  /// a split was found.
  bool resolve_split(Field field, const Values<Predicted>& plain) {
    Accumulator* accumulator = accumulator_of(field);
    if (accumulator == nullptr || accumulator->kind != AccumulatorKind::HopperAnySplit) return false;
    *accumulator = {AccumulatorKind::Hopper, {}};
    if (upstream_.has(field)) {
      const auto* intermediate =
          field == Field::second_gemm ? &value<Predicted>(Field::intermediate, Mode::Isolated) : nullptr;
      if (const auto split = find_split(field, isolated_, intermediate, upstream_.fields->at(field), plain))
        *accumulator = *split;
    }
    isolated_.accumulators = layer_.accumulators;
    predicted_.stored[static_cast<int>(Mode::Chained)][static_cast<std::size_t>(field)].reset();
    return !accumulator->splits.empty();
  }

  Memo<Bounded>& memo(Bounded) { return bounded_; }
  Memo<Predicted>& memo(Predicted) { return predicted_; }

  /// A field as downstream stages read it: the candidate's own values when isolated, else evaluated and
  /// stored.
  template <class A>
  const Values<A>& value(Field field, Mode mode) {
    auto& slot = memo(A{}).stored[static_cast<int>(mode)][static_cast<std::size_t>(field)];
    if (!slot) {
      if (mode == Mode::Isolated && upstream_.has(field))
        slot = lift<A>(upstream_.fields->at(field));
      else {
        auto values = evaluate<A>(field, mode);
        store_field<A>(field, layer_, values);
        slot = std::move(values);
      }
    }
    return *slot;
  }

  /// Before storing; remembers the stored values for the chain.
  template <class A>
  Values<A> evaluated(Field field, Mode mode) {
    auto values = evaluate<A>(field, mode);
    const bool feeds_chain = mode == Mode::Chained || same_in_both_modes(field);
    auto& slot = memo(A{}).stored[static_cast<int>(Mode::Chained)][static_cast<std::size_t>(field)];
    if (feeds_chain && !slot) {
      slot.emplace(values.size());
#pragma omp parallel for schedule(static)
      for (std::size_t i = 0; i < values.size(); ++i) (*slot)[i] = values[i];
      store_field<A>(field, layer_, *slot);
    }
    return values;
  }

  template <class A>
  Values<A> evaluate(Field field, Mode mode) {
    Values<A> result;
    const Layer& at = layer(mode);
    switch (field) {
      case Field::router_logits: return router_logits<A>(at);
      case Field::topk_weights: return topk_weights<A>(at, value<A>(Field::router_logits, mode));
      case Field::first_gemm: return first_gemm<A>(at);
      case Field::intermediate: result = act_and_mul<A>(at, value<A>(Field::first_gemm, mode)); break;
      case Field::second_gemm: result = second_gemm<A>(at, value<A>(Field::intermediate, mode)); break;
      case Field::hidden_states_unpermute:
        result = unpermute<A>(at, value<A>(Field::second_gemm, mode));
        break;
      case Field::hidden_states:
        result =
            merge<A>(at, value<A>(Field::hidden_states_unpermute, mode), value<A>(Field::topk_weights, mode));
        break;
      default: throw InputError(fmt::format("{} is not a rounded forward field", name(field)));
    }
    // Each of these is read by one stage only: give the memory back.
    for (const Field read : upstream_of(field))
      if (read != Field::topk_weights)
        memo(A{}).stored[static_cast<int>(mode)][static_cast<std::size_t>(read)].reset();
    return result;
  }

  Upstream upstream_;
  bool predict_;
  Layer layer_;     // chained: the rebuilt gather order
  Layer isolated_;  // the candidate's own gather_indices
  Memo<Bounded> bounded_;
  Memo<Predicted> predicted_;
};

}  // namespace

std::unique_ptr<Reference> make_reference(const Problem& problem, const Upstream& upstream,
                                          const PrecisionContract& contract, const Accumulators& accumulators,
                                          bool predict) {
  return std::make_unique<ReferenceRun>(problem, upstream, contract, accumulators, predict);
}

}  // namespace assay
