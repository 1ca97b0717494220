#include "reference_cpu/explain/explain.h"

#include <algorithm>

#include <fmt/format.h>

#include "harness/contract/error.h"
#include "harness/contract/place.h"
#include "harness/contract/selection.h"
#include "harness/contract/subproblem.h"
#include "harness/contract/upstream.h"
#include "reference_cpu/evaluator.h"
#include "reference_cpu/reference_run.h"

namespace assay {
namespace {

class Explanation {
 public:
  Explanation(const Problem& problem, const Candidate& candidate, const PrecisionContract& contract,
              const Accumulators& accumulators, bool predict, const Question& question)
      : problem_(problem),
        candidate_(candidate),
        contract_(contract),
        accumulators_(accumulators),
        declared_(accumulators),
        predict_(predict),
        question_(question),
        upstream_(usable_upstream(problem, candidate.fields)),
        whole_(make_reference(problem, upstream_, contract, accumulators, predict)) {}

  Derivation run() {
    const FieldRow& what = row(question_.field);
    if (given(question_.field))
      throw UsageError(
          fmt::format("explain takes computed fields, and {} is one of {}", what.name, name(what.group)));
    if (!computable(question_.field, problem_))
      throw UsageError(fmt::format(
          "{} is a gradient, and the problem has no d_hidden_states to compute it from", what.name));
    place_ = find_place(question_.field, problem_.sizes(), whole_->routing(), question_.at);
    describe();
    if (what.dtype == DType::Int32 && question_.field != Field::selected_experts) {
      derive_integer(*whole_, place_, problem_.config.top_k, candidate_, upstream_.has(question_.field),
                     derivation_);
      return std::move(derivation_);
    }
    cut_tokens();
    if (question_.field == Field::selected_experts) {
      selection();
      return std::move(derivation_);
    }
    judge_value();
    derive();
    return std::move(derivation_);
  }

 private:
  bool binding() const {
    return promises_bits(question_.declared, ExpertRowOrder::Ascending, question_.field,
                         derivation_.from.empty(), contract_);
  }

  void describe() {
    derivation_.field = question_.field;
    derivation_.dtype = dtype_of(question_.field, contract_);
    derivation_.mode = question_.mode;
    derivation_.problem = problem_.name;
    derivation_.candidate = candidate_.name;
    derivation_.contract = contract_.name;
    derivation_.from =
        question_.mode == Mode::Isolated ? whole_->isolated_from(question_.field) : "the problem's inputs";
    const std::pair<const char*, std::int64_t> axes[] = {{"row", place_.row},
                                                         {"token", place_.token},
                                                         {"slot", place_.slot},
                                                         {"expert", place_.expert},
                                                         {"col", place_.col}};
    for (const auto& [axis, at] : axes)
      if (at >= 0) derivation_.at.emplace_back(axis, at);
    if (upstream_.has(Field::gather_indices) &&
        !std::ranges::equal(candidate_.fields.at(Field::gather_indices).as<std::int32_t>(),
                            whole_->routing().gather))
      derivation_.remarks.push_back(
          "the candidate's gather_indices are wrong; rows are explained in the order they should have");
    if (!upstream_.has(Field::selected_experts))
      derivation_.remarks.push_back(
          "the candidate has no usable selected_experts: the routing is the reference's");
  }

  /// Whether the step itself or one whose result is not stored adds up a slot's products in an order that
  /// depends on the slot's place among all rows (row_sum_torch.h).
  bool needs_every_row(Field field) const {
    const StepKind kind = find_step(field, contract_)->kind;
    if (kind == StepKind::RowDots || kind == StepKind::ActivationDots) return true;
    return std::ranges::any_of(upstream_of(field, contract_), [&](Field read) {
      const bool stored = question_.mode == Mode::Isolated && upstream_.has(read);
      return !stored && needs_every_row(read);
    });
  }

  /// The tokens that the element is made of, ascending.
  std::vector<std::int64_t> tokens_of_element() const {
    const Sizes sizes = problem_.sizes();
    const auto product = product_of(question_.field);
    if (needs_every_row(question_.field) || (product && row(*product).summed == Dim::T))
      return whole(sizes).tokens;
    if (!product || row(*product).summed != Dim::S) return {place_.token};
    std::vector<std::int64_t> tokens;
    const auto& selected = whole_->routing().selected;
    for (std::int64_t slot = 0; slot < sizes.slots(); ++slot)
      if (selected[static_cast<std::size_t>(slot)] == place_.expert)
        tokens.push_back(slot / problem_.config.top_k);
    return tokens;
  }

  /// Those tokens as a problem of its own, the candidate's fields with it, and what the element's step reads.
  void cut_tokens() {
    const Sizes sizes = problem_.sizes();
    const auto& routing = whole_->routing();
    const Field asked = question_.field;
    Part part = whole(sizes);
    part.tokens = tokens_of_element();
    FieldSet fields;
    for (const auto& what : kFields) {
      const bool read =
          what.id == asked ? what.rows != RowsAre::ExpertMatrix : descends_from(asked, what.id, contract_);
      if (upstream_.has(what.id) && read && what.id != Field::gather_indices &&
          what.id != Field::token_counts_by_expert)
        fields.set(what.id, candidate_.fields.at(what.id));
    }
    Tensor selected(DType::Int32, expected_shape(Field::selected_experts, sizes));
    std::ranges::copy(routing.selected, selected.as<std::int32_t>().begin());
    fields.set(Field::selected_experts, std::move(selected));
    fields_ = *subfields(fields, sizes, routing.selected, part);  // no expert is dropped
    resolve_splits();
    sub_ = subproblem(problem_, part);
    part_upstream_ = usable_upstream(sub_, fields_);
    const Upstream read = question_.mode == Mode::Isolated ? part_upstream_ : Upstream{};
    FieldFlags flags{};
    flags[static_cast<std::size_t>(asked)] = true;
    bounded_.emplace(layer_, read, flags);
    predicted_.emplace(layer_, read, flags);
    layer_.problem = &sub_;
    layer_.contract = &contract_;
    layer_.accumulators = accumulators_;
    layer_.declared = declared_;
    const auto own = fields_.at(Field::selected_experts).as<std::int32_t>();
    layer_.routing = get_token_counts_and_gather_indices(sub_.config, {own.begin(), own.end()});
    at_.layer = &layer_;
    at_.mode = question_.mode;
    at_.predict = predict_;
    at_.tokens = std::move(part.tokens);
    at_.token = std::max<std::int64_t>(0, std::ranges::find(at_.tokens, place_.token) - at_.tokens.begin());
    at_.expert = place_.expert;
    at_.slot = place_.slot;
    at_.col = place_.col;
    if (place_.col < 0) at_.col = row(asked).shape[1] == Dim::K ? place_.slot : place_.expert;
    at_.row = place_.row;
    if (row(asked).rows == RowsAre::ExpertOrder)
      at_.row = rows_of_slots(layer_)[static_cast<std::size_t>(at_.token * problem_.config.top_k + at_.slot)];
  }

  /// Which split of K explains a field is only known from the whole of it.
  void resolve_splits() {
    if (!predict_) return;
    const Field asked = question_.field;
    for (const ProductRow& product : kProducts) {
      const Field field = product.made;
      Accumulator& accumulator = accumulators_[product.id];
      if (accumulator.kind != AccumulatorKind::HopperAnySplit) continue;
      if (!product_of(field) || product.summed == Dim::S || product.summed == Dim::T) {  // none is sought
        accumulator.kind = AccumulatorKind::Hopper;
        continue;
      }
      const bool read = descends_from(asked, field, contract_) &&
                        !(question_.mode == Mode::Isolated && upstream_.has(field));
      if (field != asked && !read) continue;
      if (upstream_.has(field)) whole_->predicted(field, Mode::Isolated, all_rows(field, problem_.sizes()));
      accumulator = parse_accumulator(whole_->accumulator(field));
      if (accumulator.kind == AccumulatorKind::HopperAnySplit) accumulator.kind = AccumulatorKind::Hopper;
    }
  }

  /// The element's row in the part's own tensor, all experts' matrices counted through.
  std::int64_t local_row() const {
    switch (row(question_.field).rows) {
      case RowsAre::Slots: return at_.token * problem_.config.top_k + place_.slot;
      case RowsAre::ExpertOrder: return at_.row;
      case RowsAre::Tokens: return at_.token;
      case RowsAre::Experts: return place_.expert;
      case RowsAre::ExpertMatrix: break;
    }
    return place_.expert * matrix_rows_of(question_.field, problem_.sizes()) + place_.row;
  }

  void judge_value() {
    const auto reference = make_reference(sub_, part_upstream_, contract_, declared_, false);
    const bool by_matrix = row(question_.field).rows == RowsAre::ExpertMatrix;
    const std::int64_t own = local_row();
    const RowRange rows = by_matrix ? RowRange{own, own + 1} : all_rows(question_.field, sub_.sizes());
    const auto i =
        static_cast<std::size_t>((own - rows.begin) * width_of(question_.field, sub_.sizes()) + at_.col);
    Derivation& d = derivation_;
    d.value = reference->bounded(question_.field, question_.mode, rows)[i];
    d.store = reference->store(question_.field);
    d.running_words = reference->bound_account(question_.field, question_.mode, {}).running;
    const auto predicting = make_reference(sub_, part_upstream_, contract_, accumulators_, predict_);
    d.accumulator = predicting->accumulator(question_.field);
    const Stored low = stored_as(d.dtype, d.value.low);
    const Stored high = stored_as(d.dtype, d.value.high);
    d.low = low.value;
    d.high = high.value;
    if (!std::isnan(low.value) && !std::isnan(high.value))
      d.accepted_count = high.ordinal() - low.ordinal() + 1;
    const std::uint32_t sign = d.dtype == DType::Float32 ? 0x80000000u : 0x8000u;
    for (std::int64_t n = 0; n < std::min<std::int64_t>(d.accepted_count, kListedValues); ++n) {
      const std::int64_t at = low.ordinal() + n;
      const auto magnitude = static_cast<std::uint32_t>(std::abs(at));
      d.accepted.push_back(with_bits(d.dtype, at < 0 ? sign | magnitude : magnitude).value);
    }
    if (predict_) d.predicted = predicting->predicted(question_.field, question_.mode, rows)[i];
    const auto found = found_element(candidate_, upstream_.has(question_.field), place_, d);
    if (found) judge_found(*found, binding(), d);
  }

  /// What the step reads, as stored; with the weight after the product also what is formed for it.
  void read_upstream() {
    const auto reads = upstream_of(question_.field, contract_);
    std::vector<Field> all(reads.begin(), reads.end());
    if (weight_after_product(contract_) && question_.field == Field::d_down_proj)
      all.push_back(Field::intermediate);
    for (const Field read : all) {
      at_.bounded[static_cast<std::size_t>(read)] = &bounded_->seen(question_.field, read);
      if (predict_) at_.predicted[static_cast<std::size_t>(read)] = &predicted_->seen(question_.field, read);
    }
  }

  void derive() {
    read_upstream();
    switch (find_step(question_.field, contract_)->kind) {
      case StepKind::Product:
        if (row(*product_of(question_.field)).left_lies == Lies::AlongRows) {
          derive_weight_gradient(at_, question_.terms, derivation_);
          return derive_addition(at_, derivation_);
        }
        derive_product(at_, question_.terms, derivation_);
        if (question_.field == Field::d_intermediate && weight_after_product(contract_))
          weigh_product(at_, derivation_);
        return;
      case StepKind::Swiglu: return derive_intermediate(at_, derivation_);
      case StepKind::Weights: return derive_weight(at_, derivation_);
      case StepKind::Unpermute:
        derivation_.steps.push_back(
            {fmt::format("second_gemm, expert {}, token {}, col {}", place_.expert, place_.token, place_.col),
             "a copy",
             derivation_.value,
             {}});
        return;
      case StepKind::Merge: return derive_merge(at_, derivation_);
      case StepKind::WeightedRows: return derive_weighted_row(at_, derivation_);
      case StepKind::RowDots: return derive_row_dot(at_, question_.terms, derivation_);
      case StepKind::SwigluGrad: return derive_swiglu_gradient(at_, derivation_);
      case StepKind::SoftmaxGrad: return derive_logit_gradient(at_, derivation_);
      case StepKind::Combine: return derive_combined_slots(at_, derivation_);
      case StepKind::AddRouter: return derive_input_gradient(at_, question_.terms, derivation_);
      case StepKind::ActivationDots: return derive_activation_dot(at_, question_.terms, derivation_);
      case StepKind::Selection:  // selection(), derive_integer
      case StepKind::Counts:
      case StepKind::Order: break;
    }
    throw InputError(fmt::format("explain has no words for {}", name(question_.field)));
  }

  void selection() {
    read_upstream();
    std::vector<std::int32_t> listed;
    if (upstream_.has(Field::selected_experts)) {
      const auto own = fields_.at(Field::selected_experts).as<std::int32_t>();
      listed.assign(own.begin(), own.end());
    }
    derive_ranking(at_, listed, derivation_);
    decide_selection(listed, *at_.bounded_of(Field::router_logits));
  }

  void decide_selection(std::span<const std::int32_t> listed, const Values<Bounded>& logits) {
    Derivation& d = derivation_;
    if (listed.empty()) {
      d.sentence = "the candidate has no such field, or one of wrong shape, dtype or range";
      return;
    }
    d.out = listed[static_cast<std::size_t>(place_.slot)];
    // By exact logits, equals by the lowest index: legal, but not the only legal choice.
    d.value = Bounded::exact(static_cast<double>(d.ranking[static_cast<std::size_t>(place_.slot)].expert));
    d.low = d.high = d.value.ref;
    const std::vector<Interval> ends(logits.begin(), logits.end());
    const auto check = check_selection(sub_.config, contract_, {ends, ends}, listed).judgement;
    const auto as_predicted =
        std::ranges::all_of(d.ranking, [](const RankedExpert& e) { return e.slot == e.predicted_slot; });
    if (check.verdict != Verdict::Passed) {
      d.verdict = Verdict::Failed;
      d.sentence = "rejected: no error the logits may have makes this choice and order the largest first";
    } else if (predict_ && !as_predicted) {
      d.verdict = binding() ? Verdict::Suspect : Verdict::Passed;
      d.sentence = "legal, yet not the choice or order predicted";
    } else {
      d.verdict = Verdict::Passed;
      d.sentence = predict_ ? "accepted, and the very choice predicted" : "accepted";
    }
  }

  const Problem& problem_;
  const Candidate& candidate_;
  const PrecisionContract& contract_;
  Accumulators accumulators_;
  Accumulators declared_;  // before a split was searched for: what bounds may rely on
  bool predict_;
  const Question& question_;
  Upstream upstream_;
  std::unique_ptr<Reference> whole_;
  Place place_;
  Derivation derivation_;
  Problem sub_;
  FieldSet fields_;  // of the tokens
  Upstream part_upstream_;
  Layer layer_;
  std::optional<Evaluator<Bounded>> bounded_;
  std::optional<Evaluator<Predicted>> predicted_;
  ElementLayer at_;
};

}  // namespace

Derivation explain(const Problem& problem, const Candidate& candidate, const PrecisionContract& contract,
                   const Accumulators& accumulators, bool predict, const Question& question) {
  return Explanation(problem, candidate, contract, accumulators, predict, question).run();
}

}  // namespace assay
