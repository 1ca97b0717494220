#include "reference_cpu/reference_run.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include <fmt/format.h>

#include "harness/contract/error.h"
#include "harness/contract/row_order.h"
#include "harness/contract/stored.h"
#include "harness/contract/subproblem.h"
#include "harness/contract/upstream.h"
#include "harness/contract/worth_threads.h"
#include "harness/host/phase_timer.h"
#include "reference_cpu/bound_account.h"
#include "reference_cpu/causes/causes.h"
#include "reference_cpu/causes/hypotheses.h"
#include "reference_cpu/confirmation.h"
#include "reference_cpu/evaluator.h"
#include "reference_cpu/product/kept_panels.h"
#include "reference_cpu/product/product.h"
#include "reference_cpu/product/split_search.h"
#include "reference_cpu/product/weight_gradient.h"
#include "reference_cpu/stages.h"
#include "reference_cpu/stored_bits.h"

namespace assay {
namespace {

constexpr std::int64_t kTrialWork = std::int64_t{1} << 26;  // multiply-adds, of a field that was not written
// Elements of a field whose intervals and predictions are held at once to find what is wrong with it.
constexpr std::int64_t kExplainedElements = std::int64_t{1} << 27;
constexpr std::size_t kTrialExpertBytes = std::size_t{1} << 29;
constexpr std::size_t kTrialPanelBytes = std::size_t{1} << 29;

class ReferenceRun final : public Reference {
 public:
  ReferenceRun(const Problem& problem, const Upstream& upstream, const PrecisionContract& contract,
               const Accumulators& accumulators, bool predict, const Engine* engine, const Fault& fault = {},
               const std::vector<std::int32_t>* chosen = nullptr)
      : upstream_(upstream),
        predict_(predict),
        bounded_(isolated_, layer_, upstream),
        predicted_(isolated_, layer_, upstream) {
    layer_.fault = fault;
    layer_.engine = engine;
    layer_.problem = &problem;
    layer_.contract = &contract;
    layer_.accumulators = layer_.declared = accumulators;
    isolated_ = layer_;  // the selection may need the logits
    layer_.routing =
        get_token_counts_and_gather_indices(problem.config, chosen != nullptr ? *chosen : selection());
    isolated_.routing = layer_.routing;
    ascending_ = layer_.routing.gather;
    if (upstream.has(Field::gather_indices)) {
      const auto gather = upstream.fields->at(Field::gather_indices).as<std::int32_t>();
      isolated_.routing.gather.assign(gather.begin(), gather.end());
      if (same_slots_per_expert(layer_.routing, gather)) layer_.routing.gather = isolated_.routing.gather;
    }
  }

  LargeVector<Interval> bounded(Field field, Mode mode, RowRange rows) override {
    auto values = [&] {
      const PhaseTimer timer(fmt::format("bounded {}", name(field)));
      return evaluated<Bounded>(field, mode, rows);
    }();
    confirm(field, mode, rows, values);
    if (loses_noise(field, mode)) keep_noise_above_underflow(values);
    return values;
  }

  std::shared_ptr<const KeptIntervals> kept(Field field, Mode mode, RowRange rows) override {
    auto made = [&] {
      const PhaseTimer timer(fmt::format("bounded {}", name(field)));
      return bounded_.in(mode).evaluate_kept(field, rows, loses_noise(field, mode));
    }();
    if (made) confirm(field, mode, rows, *made);
    return made;
  }

  LargeVector<PredictedBits> predicted(Field field, Mode mode, RowRange rows) override {
    if (!predict_) return {};
    const PhaseTimer timer(fmt::format("predicted {}", name(field)));
    if (mode == Mode::Chained && layer_.fault.kind == FaultKind::None && predicted_.chained.holds(field))
      return stored_bits(field, contract(), predicted_.chained.passed_over(field));
    auto values = evaluated<Predicted>(field, mode, rows);
    if (mode == Mode::Isolated && resolve_split(field, values))
      values = evaluated<Predicted>(field, mode, rows);
    if (layer_.fault.kind != FaultKind::None) store_field<Predicted>(field, layer_, values);
    return stored_bits(field, contract(), values);
  }

  bool predicts_first(Field field, Mode mode) const override {
    const auto product = product_of(field);
    return predict_ && mode == Mode::Isolated && product &&
           layer_.accumulators[*product].kind == AccumulatorKind::HopperAnySplit;
  }

  std::optional<LargeVector<std::uint16_t>> predicted_words(Field field, Mode mode, RowRange rows) override {
    expect_block(field, rows);
    if (!predict_) return {};
    const PhaseTimer timer(fmt::format("predicted {}", name(field)));
    return predicted_.in(mode).evaluate_words(field, rows);
  }

  std::vector<std::int32_t> expected_integers(Field field) override {
    if (field == Field::token_counts_by_expert) return layer_.routing.counts;
    if (field == Field::gather_indices) return ascending_;
    throw InputError(fmt::format("{} is not an exact integer field", name(field)));
  }

  std::vector<std::int32_t> predicted_selection(Mode mode, std::vector<bool>& undetermined_tokens) override {
    return select_experts(layer(mode), predicted_.in(mode).value(Field::router_logits), undetermined_tokens);
  }

  Store store(Field field) const override { return store_of(field, *layer_.contract); }

  BoundAccount bound_account(Field field, Mode mode, std::span<const std::int64_t> elements) override {
    const bool isolated = mode == Mode::Isolated;
    const bool carries = isolated ? !isolated_from(field).empty() : !read_by(field).empty();
    const auto product = product_of(field);
    const bool after = weight_after_product(contract());
    if (after && field == Field::d_intermediate) elements = {};  // of the product alone, the weight missing
    const auto read = [&](Field operand) {
      const bool none = given(operand) || (after && operand == Field::d_second_gemm);
      return none || elements.empty() ? nullptr : &bounded_.in(mode).seen(field, operand);
    };
    return assay::bound_account(field, layer(mode), product ? read(row(*product).left) : nullptr,
                                product ? read(row(*product).right) : nullptr, carries, elements);
  }

  bool same_in_both_modes(Field field) const override {
    if (!read_by(field).empty()) return false;
    return row(field).rows == RowsAre::Tokens || isolated_.routing.gather == layer_.routing.gather;
  }

  bool same_predictions(Field field) override {
    if (!predict_ || isolated_.routing.gather != layer_.routing.gather) return false;
    return std::ranges::all_of(read_by(field), [&](Field read) {
      return same_determined(predicted_.isolated.seen(field, read), predicted_.chained.seen(field, read));
    });
  }

  std::string isolated_from(Field field) const override {
    std::string missing;
    for (const Field need : unwritten_before(field, upstream_, contract()))
      missing += fmt::format("{}{}{}", missing.empty() ? "" : ", ", name(need),
                             upstream_.has(need) ? " before its rounding" : "");
    return missing;
  }

  const Routing& routing() const override { return layer_.routing; }

  std::vector<Cause> causes(Field field) override {
    const bool sought = (fields_of(field) & hypothesis_fields::kAll) != 0;
    const std::size_t elements = upstream_.has(field) ? upstream_.fields->at(field).size() : 0;
    if (!sought || elements == 0 || elements > kExplainedElements) return {};
    Evidence own = evidence(field);
    auto causes = find_causes(own);
    auto unwritten = unwritten_before(field, upstream_, contract());
    const bool chooses = std::ranges::find(unwritten, Field::router_logits) != unwritten.end();
    if (chooses && !upstream_.has(Field::selected_experts)) unwritten.push_back(Field::selected_experts);
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

  ConfirmedValues confirmed() const override { return confirmed_; }
  std::string accumulator(Field field) const override {
    for (const ProductRow& product : kProducts)
      if (product.made == field) return to_string(layer_.accumulators[product.id]);
    return "";
  }

 private:
  /// Only gradients of experts' matrices are computed in parts.
  void expect_block(Field field, RowRange rows) const {
    const RowRange all = all_rows(field, layer_.problem->sizes());
    if (row(field).rows != RowsAre::ExpertMatrix && rows != all)
      throw InputError(fmt::format("expected rows {} to {} of {}, all of it, found {} to {}", all.begin,
                                   all.end, name(field), rows.begin, rows.end));
  }

  /// Where operands carry noise that a product may add up below what fp32 holds.
  bool loses_noise(Field field, Mode mode) const {
    return mode == Mode::Chained || !unwritten_before(field, upstream_, contract()).empty();
  }

  Evidence evidence(Field field) {
    const auto bounded = bounded_.isolated.evaluate(field);
    Evidence evidence = gather_evidence(
        field, isolated_, StoredSpan(upstream_.fields->at(field), dtype_of(field, *layer_.contract)),
        predicted_.isolated.evaluate(field), bounded);
    for (const Field read : read_by(field))
      evidence.inputs[static_cast<std::size_t>(read)] = &predicted_.isolated.seen(field, read);
    evidence.read = [this, field](Field other) -> const Values<Predicted>& {
      return predicted_.isolated.seen(field, other);
    };
    if (field == Field::hidden_states &&
        upstream_.has(Field::router_logits))  // to try weights before their rounding
      evidence.inputs[static_cast<std::size_t>(Field::router_logits)] =
          &predicted_.isolated.value(Field::router_logits);
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
    const auto run = [&](const Fault& fault, const std::vector<std::int32_t>* chosen = nullptr) {
      return ReferenceRun(problem, upstream, *layer_.contract, layer_.accumulators, true, layer_.engine,
                          fault, chosen);
    };
    ReferenceRun right = run({});
    right.layer_.declared = right.isolated_.declared = layer_.declared;
    KeptPanels panels(kTrialPanelBytes);
    const Field field = whole_evidence.field;
    Evidence beside = right.evidence(field);
    std::map<Field, Values<Predicted>> sound;  // computed once for all trials
    for (const Field one : unwritten)
      if (row(one).dtype != DType::Int32) sound[one] = right.predicted_.isolated.evaluate(one);
    panels.close();
    const auto trial = [&](const Fault& fault, Chosen chosen) {
      ReferenceRun wrong = run(fault, chosen == Chosen::AsWithout ? &right.layer_.routing.selected : nullptr);
      if (wrong.layer_.routing.selected == right.layer_.routing.selected)
        wrong.predicted_.isolated.keep_unreached(fault.field, sound);
      return wrong.predicted_.isolated.evaluate(field);
    };
    const UnwrittenTrials trials{trial, std::ssize(part.tokens) < sizes.tokens,
                                 [this](Field one) { return upstream_.has(one); }};
    return find_causes(beside, trials, unwritten);
  }

  template <class Judged>
  void confirm(Field field, Mode mode, RowRange rows, const Judged& values) {
    const std::scoped_lock lock(confirming_);
    const PhaseTimer timer("plain layer");
    StepReads reads{};
    for (const Field from : read_by(field))
      reads[static_cast<std::size_t>(from)] = &bounded_.in(mode).seen(field, from);
    const auto [agree, of] = confirm_by_plain_layer(field, layer(mode), reads, values, rows);
    confirmed_.values += agree;
    confirmed_.of += of;
    // Where the weight comes after the product, d_intermediate is stored by nobody and never asked for.
    const bool hidden =
        weight_after_product(contract()) && std::ranges::count(read_by(field), Field::d_intermediate) > 0;
    if (!hidden || std::exchange(product_confirmed_[mode == Mode::Chained], true)) return;
    confirm(Field::d_intermediate, mode, all_rows(Field::d_intermediate, layer_.problem->sizes()),
            bounded_.in(mode).evaluate(Field::d_intermediate));
  }

  const PrecisionContract& contract() const { return *layer_.contract; }
  std::span<const Field> read_by(Field field) const { return upstream_of(field, contract()); }
  const Layer& layer(Mode mode) const { return mode == Mode::Isolated ? isolated_ : layer_; }

  /// The candidate's routing where it is usable, else the reference's own.
  std::vector<std::int32_t> selection() {
    if (upstream_.has(Field::selected_experts)) {
      const auto selected = upstream_.fields->at(Field::selected_experts).as<std::int32_t>();
      return {selected.begin(), selected.end()};
    }
    std::vector<bool> undetermined;
    if (predict_)
      return select_experts(layer_, predicted_.isolated.value(Field::router_logits), undetermined);
    return select_experts(layer_, bounded_.isolated.value(Field::router_logits));
  }

  /// cuBLAS chooses how it splits K: `hopper` stands, or the one split that explains the whole field. True if
  /// a split was found. Sums over an expert's rows are too short to be split, and come in blocks: none is
  /// sought.
  bool resolve_split(Field field, const Values<Predicted>& plain) {
    const auto product = product_of(field);
    if (!product || (field == Field::d_intermediate && weight_after_product(contract()))) return false;
    Accumulator& accumulator = layer_.accumulators[*product];
    if (accumulator.kind != AccumulatorKind::HopperAnySplit) return false;
    accumulator = {AccumulatorKind::Hopper, {}};
    const bool may_be_split = !sums_over_rows(row(*product));
    const auto [rows, bits] = may_be_split ? known_bits(field, upstream_, layer_.problem->sizes())
                                           : decltype(known_bits(field, upstream_, {}))();
    if (!rows.empty()) {
      const Field left = row(*product).left;
      const auto* operand = given(left) ? nullptr : &predicted_.isolated.value(left);
      if (const auto split = find_split(*product, isolated_, operand, bits, rows, plain))
        accumulator = *split;
    }
    isolated_.accumulators = layer_.accumulators;
    predicted_.isolated.forget(field);
    predicted_.chained.forget(field);
    return !accumulator.splits.empty();
  }

  Walks<Bounded>& walks(Bounded) { return bounded_; }
  Walks<Predicted>& walks(Predicted) { return predicted_; }
  /// Before storing. What both modes share is kept for the chain, where anything reads it.
  template <class A>
  Values<A> evaluated(Field field, Mode mode, RowRange rows) {
    expect_block(field, rows);
    auto values = walks(A{}).in(mode).evaluate_rows(field, rows);
    if (readers_of(field, contract()).empty()) return values;
    auto& chained = walks(A{}).chained;
    const bool chains = mode == Mode::Chained || same_in_both_modes(field) ||
                        (std::is_same_v<A, Predicted> && same_predictions(field));
    if (chains && !chained.holds(field)) {
      Values<A> kept(values.size());
#pragma omp parallel for schedule(static) if (worth_threads(values.size()))
      for (std::size_t i = 0; i < values.size(); ++i) kept[i] = values[i];
      chained.keep(field, std::move(kept));
    }
    return values;
  }

  Upstream upstream_;
  bool predict_;
  std::recursive_mutex confirming_;  // of these two; one field may take another with it
  ConfirmedValues confirmed_;
  std::array<bool, 2> product_confirmed_{};  // d_intermediate's, isolated and chained
  std::vector<std::int32_t> ascending_;      // the gather order that is promised where none is declared
  Layer layer_;     // chained: the rebuilt gather order, or the candidate's own of each expert's rows
  Layer isolated_;  // the candidate's own gather_indices
  Walks<Bounded> bounded_;
  Walks<Predicted> predicted_;
};

}  // namespace

std::unique_ptr<Reference> make_reference(const Problem& problem, const Upstream& upstream,
                                          const PrecisionContract& contract, const Accumulators& accumulators,
                                          bool predict, const Engine* engine) {
  return std::make_unique<ReferenceRun>(problem, upstream, contract, accumulators, predict, engine);
}

}  // namespace assay
