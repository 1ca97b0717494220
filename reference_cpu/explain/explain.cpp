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
    if (what.group != Group::Forward)
      throw UsageError(
          fmt::format("explain takes forward fields, and {} is one of {}", what.name, name(what.group)));
    place_ = find_place(question_.field, problem_.sizes(), whole_->routing(), question_.at);
    describe();
    if (what.dtype == DType::Int32 && question_.field != Field::selected_experts) {
      derive_integer(*whole_, place_, problem_.config.top_k, candidate_, upstream_.has(question_.field),
                     derivation_);
      return std::move(derivation_);
    }
    cut_token();
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

  /// The element's token as a problem of its own, the candidate's fields with it, and what its stage reads.
  void cut_token() {
    const Sizes sizes = problem_.sizes();
    const auto& routing = whole_->routing();
    Part part = whole(sizes);
    part.tokens = {place_.token};
    FieldSet fields;
    for (const auto& what : kFields)
      if (upstream_.has(what.id) && what.id != Field::gather_indices &&
          what.id != Field::token_counts_by_expert)
        fields.set(what.id, candidate_.fields.at(what.id));
    Tensor selected(DType::Int32, expected_shape(Field::selected_experts, sizes));
    std::ranges::copy(routing.selected, selected.as<std::int32_t>().begin());
    fields.set(Field::selected_experts, std::move(selected));
    fields_ = *subfields(fields, sizes, routing.selected, part);  // no expert is dropped
    resolve_splits();
    sub_ = subproblem(problem_, part);
    token_upstream_ = usable_upstream(sub_, fields_);
    const Upstream read = question_.mode == Mode::Isolated ? token_upstream_ : Upstream{};
    FieldFlags asked{};
    asked[static_cast<std::size_t>(question_.field)] = true;
    bounded_.emplace(layer_, read, asked);
    predicted_.emplace(layer_, read, asked);
    layer_.problem = &sub_;
    layer_.contract = &contract_;
    layer_.accumulators = accumulators_;
    layer_.declared = declared_;
    const auto own = fields_.at(Field::selected_experts).as<std::int32_t>();
    layer_.routing = get_token_counts_and_gather_indices(sub_.config, {own.begin(), own.end()});
    at_.layer = &layer_;
    at_.mode = question_.mode;
    at_.predict = predict_;
    at_.token = place_.token;
    at_.expert = place_.expert;
    at_.slot = place_.slot;
    at_.col = place_.col;
    if (place_.col < 0) at_.col = row(question_.field).shape[1] == Dim::K ? place_.slot : place_.expert;
    if (row(question_.field).rows == RowsAre::ExpertOrder)
      at_.row = std::ranges::find(layer_.routing.gather, static_cast<std::int32_t>(place_.slot)) -
                layer_.routing.gather.begin();
  }

  /// Which split of K explains a field is only known from the whole of it.
  void resolve_splits() {
    if (!predict_) return;
    const Field asked = question_.field;
    for (const ProductRow& product : kProducts) {
      const Field field = product.made;
      const bool read =
          descends_from(asked, field) && !(question_.mode == Mode::Isolated && upstream_.has(field));
      if (field != asked && !read) continue;
      Accumulator& accumulator = accumulators_[product.id];
      if (accumulator.kind != AccumulatorKind::HopperAnySplit) continue;
      if (upstream_.has(field)) whole_->predicted(field, Mode::Isolated, all_rows(field, problem_.sizes()));
      accumulator = parse_accumulator(whole_->accumulator(field));
      if (accumulator.kind == AccumulatorKind::HopperAnySplit) accumulator.kind = AccumulatorKind::Hopper;
    }
  }

  /// Index of the element in the token's own tensor.
  std::size_t local_index() const {
    std::int64_t at = 0;  // its row there
    if (row(question_.field).rows == RowsAre::Slots) at = place_.slot;
    if (row(question_.field).rows == RowsAre::ExpertOrder) at = at_.row;
    return static_cast<std::size_t>(at * width_of(question_.field, sub_.sizes()) + at_.col);
  }

  void judge_value() {
    const auto reference = make_reference(sub_, token_upstream_, contract_, declared_, false);
    const std::size_t i = local_index();
    const RowRange rows = all_rows(question_.field, sub_.sizes());
    Derivation& d = derivation_;
    d.value = reference->bounded(question_.field, question_.mode, rows)[i];
    d.store = reference->store(question_.field);
    d.running_words = reference->bound_account(question_.field, question_.mode, {}).running;
    const auto predicting = make_reference(sub_, token_upstream_, contract_, accumulators_, predict_);
    d.accumulator = predicting->accumulator(question_.field);
    const Bf16 low = round_to_bf16(d.value.low);
    const Bf16 high = round_to_bf16(d.value.high);
    const Bf16 rounded = round_to_bf16(d.value.ref);
    d.low = to_float(low);
    d.high = to_float(high);
    if (!is_nan(low) && !is_nan(high)) d.accepted_count = ordinal(high) - ordinal(low) + 1;
    for (std::int64_t n = 0; n < std::min<std::int64_t>(d.accepted_count, kListedValues); ++n) {
      const std::int32_t at = ordinal(low) + static_cast<std::int32_t>(n);
      d.accepted.push_back(to_float(Bf16{static_cast<std::uint16_t>(at < 0 ? 0x8000 - at : at)}));
    }
    if (predict_) d.predicted = predicting->predicted(question_.field, question_.mode, rows)[i];
    if (!upstream_.has(question_.field)) {
      d.sentence = "the candidate has no such field, or one of wrong shape or dtype";
      return;
    }
    const Bf16 out = candidate_.fields.at(question_.field).as<Bf16>()[static_cast<std::size_t>(place_.index)];
    d.out = to_float(out);
    d.out_bits = out.bits;
    d.ulps = std::abs(std::int64_t{ordinal(out)} - ordinal(rounded));
    d.ratio = *d.out == d.value.ref
                  ? 0.0
                  : std::fabs(*d.out - d.value.ref) / (radius(d.value) + 0.5 * bf16_ulp(*d.out));
    decide(out);
  }

  void decide(Bf16 out) {
    Derivation& d = derivation_;
    const bool nan = std::isnan(d.value.ref);
    const bool accepted = is_nan(out) || nan ? is_nan(out) && nan
                                             : (d.low <= *d.out && *d.out <= d.high) ||
                                                   (std::isinf(d.value.ref) && *d.out == d.value.ref);
    const bool as_predicted = !d.predicted || d.predicted->undetermined || d.predicted->bits == out.bits;
    if (!accepted) {
      d.verdict = is_finite(out) ? Verdict::Failed : Verdict::NonFinite;
      d.sentence = is_finite(out) ? fmt::format(
                                        "rejected: {:.9g} lies outside {:.9g} .. {:.9g}, {} bf16 value{} "
                                        "from the rounded reference",
                                        *d.out, d.low, d.high, d.ulps, d.ulps == 1 ? "" : "s")
                                  : fmt::format("rejected: {} where {:.9g} .. {:.9g} is accepted", *d.out,
                                                d.low, d.high);
    } else if (!as_predicted) {
      d.verdict = binding() ? Verdict::Suspect : Verdict::Passed;
      d.sentence =
          fmt::format("{}: inside the accepted interval, yet not the bits the accumulator {} gives",
                      binding() ? "suspect" : "accepted", d.accumulator.empty() ? "chain" : d.accumulator);
    } else {
      d.verdict = Verdict::Passed;
      d.sentence =
          d.predicted && !d.predicted->undetermined ? "accepted, and the very bits predicted" : "accepted";
    }
  }

  /// What the stage reads first, as stored; null where that is the problem's input.
  void read_upstream() {
    const auto reads = upstream_of(question_.field);
    if (reads.empty()) return;
    at_.upstream = &bounded_->seen(question_.field, reads.front());
    if (predict_) at_.predicted_upstream = &predicted_->seen(question_.field, reads.front());
  }

  void derive() {
    read_upstream();
    switch (find_step(question_.field)->kind) {
      case StepKind::Product: return derive_product(at_, question_.terms, derivation_);
      case StepKind::Swiglu: return derive_intermediate(at_, derivation_);
      case StepKind::Weights: return derive_weight(at_, derivation_);
      case StepKind::Unpermute:
        derivation_.steps.push_back(
            {fmt::format("second_gemm, expert {}, token {}, col {}", place_.expert, place_.token, place_.col),
             "a copy",
             derivation_.value,
             {}});
        return;
      case StepKind::Merge:
        at_.weights = &bounded_->value(Field::topk_weights);
        if (predict_) at_.predicted_weights = &predicted_->value(Field::topk_weights);
        return derive_merge(at_, derivation_);
      case StepKind::Selection:  // selection(), derive_integer
      case StepKind::Counts:
      case StepKind::Order:
      case StepKind::WeightedRows:  // refused by run(): gradients
      case StepKind::RowDots:
      case StepKind::SwigluGrad:
      case StepKind::SoftmaxGrad:
      case StepKind::Combine:
      case StepKind::AddRouter: break;
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
    decide_selection(listed, *at_.upstream);
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
  FieldSet fields_;  // of the token
  Upstream token_upstream_;
  Layer layer_;
  std::optional<Evaluator<Bounded>> bounded_;
  std::optional<Evaluator<Predicted>> predicted_;
  TokenLayer at_;
};

}  // namespace

Derivation explain(const Problem& problem, const Candidate& candidate, const PrecisionContract& contract,
                   const Accumulators& accumulators, bool predict, const Question& question) {
  return Explanation(problem, candidate, contract, accumulators, predict, question).run();
}

}  // namespace assay
