#include "harness/judge/judge.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include <fmt/format.h>

#include "harness/contract/layer.h"
#include "harness/contract/row_order.h"
#include "harness/contract/upstream.h"
#include "harness/judge/beyond_routing.h"
#include "harness/judge/broken_upstream.h"
#include "harness/judge/compare.h"
#include "harness/judge/dependence.h"
#include "harness/judge/headline.h"
#include "harness/judge/index_findings.h"
#include "harness/judge/intake.h"
#include "harness/judge/invalid_ids.h"
#include "harness/judge/judged_fields.h"
#include "harness/judge/rounded_checks.h"
#include "harness/judge/row_alignment.h"
#include "harness/judge/selection_flips.h"
#include "harness/judge/statistics.h"
#include "harness/judge/vacuity.h"

namespace assay {
namespace {

/// Where every bit is what the declared arithmetic gives, there is nothing left to suspect.
bool explained(const Prediction& bits) {
  return bits.available && bits.elements > 0 && bits.as_predicted == bits.elements;
}

void suspect_beyond_limits(Judgement& judgement, const Prediction& bits) {
  if (judgement.statistics.suspicion.empty()) return;
  judgement.statistics.explained = explained(bits);
  if (!judgement.statistics.explained) judgement.verdict = worst(judgement.verdict, Verdict::Suspect);
}

void mistrust_vacuous(FieldResult& result) {
  const std::string reason = in_words(result.vacuity);
  if (reason.empty()) return;
  result.verdict = worst(result.verdict, Verdict::Mistrusted);
  result.notes.push_back(reason);
}

class Judge {
 public:
  Judge(const Problem& problem, const Candidate& candidate, const JudgeOptions& options)
      : problem_(problem),
        candidate_(candidate),
        options_(options),
        contract_(find_contract(options.contract.empty() ? candidate.contract : options.contract)),
        accumulators_(options.accumulators.value_or(candidate.accumulators)),
        intake_(problem, candidate, contract_),
        judged_(judged_fields(problem, candidate)) {
    contract_.ties = candidate.ties;
    accumulators_.rest_as_torch = candidate.accumulators.rest_as_torch;
    contract_.product_slack = product_slack(candidate, accumulators_);
  }

  CaseResult run() {
    const auto start = std::chrono::steady_clock::now();
    describe();
    for (const auto& what : kFields)
      if (judged_[static_cast<std::size_t>(what.id)]) intake(what.id);
    const bool any = std::ranges::any_of(intake_.upstream.usable, [](bool u) { return u; });
    if (any) {
      const bool predict = declared(accumulators_) || candidate_.from_hopper();
      reference_ = options_.reference(problem_, intake_.upstream, contract_,
                                      assumed_where_unknown(accumulators_), predict, options_.engine);
      replay_valid_ids(predict);
      for (auto& result : case_.fields) {
        if (!judgeable(result) || !selected(result.field)) continue;
        judge_field(result);
        if ((order_ = another_order(result))) return {};
      }
      const auto& counts = reference_->routing().counts;
      case_.expert_load.assign(counts.begin(), counts.end());
      case_.confirmed_values = reference_->confirmed().values;
      case_.reference_values = reference_->confirmed().of;
      if (options_.causes)
        find_index_causes(problem_, candidate_, contract_, intake_.upstream, *reference_, case_.fields);
    }
    for (const auto& result : case_.fields) case_.verdict = worst(case_.verdict, result.verdict);
    case_.first_own_error = first_own_error(case_);
    case_.own_error_place = own_error_place(case_);
    patterns_.draw(case_, options_.fine_patterns);
    case_.headline = headline(case_);
    tell_not_judged(case_, problem_, candidate_, without_gradient(candidate_, judged_));
    if (nothing_but_nan(case_, candidate_))
      case_.remarks.push_back("every value of every rounded field is NaN: they confirm nothing but NaN");
    case_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(case_);
  }

  /// The order of an expert's rows, by a field's values, that `run` found in place of a result.
  const std::optional<FoundOrder>& order() const { return order_; }

 private:
  /// Replays the routing of a candidate some of whose ids are no experts, and leaves out the rows of those.
  void replay_valid_ids(bool predict) {
    constexpr Field kIds = Field::selected_experts;
    if (intake_.upstream.has(kIds) || !intake_.out_of_range(kIds)) return;
    const auto ids = candidate_.fields.at(kIds).as<std::int32_t>();
    invalid_ = invalid_slots(ids, problem_.config.num_experts);
    valid_fields_ = candidate_.fields;
    std::ranges::copy(
        repaired_selection(ids, reference_->routing().selected, invalid_, problem_.config.top_k),
        valid_fields_.at(kIds).as<std::int32_t>().begin());
    intake_.upstream.fields = &valid_fields_;
    intake_.upstream.usable[static_cast<std::size_t>(kIds)] = true;
    reference_ = without_invalid_rows(
        options_.reference(problem_, intake_.upstream, contract_, assumed_where_unknown(accumulators_),
                           predict, options_.engine),
        problem_.sizes(), candidate_.fields, invalid_);
  }

  /// The order of its rows, where only their order within each expert is wrong and no indices say so.
  std::optional<FoundOrder> another_order(const FieldResult& result) {
    const bool orders = row(result.field).rows == RowsAre::ExpertOrder && candidate_.fields.has(result.field);
    if (!orders || candidate_.holds(Field::gather_indices) || !failed(result.chained.verdict)) return {};
    auto gather = align_rows(
        reference_->routing(), candidate_.fields.at(result.field).as<Bf16>(),
        reference_->bounded(result.field, Mode::Chained, all_rows(result.field, problem_.sizes())));
    if (!gather) return {};
    return FoundOrder{result.field, std::move(*gather)};
  }

  bool selected(Field field) const {
    const auto& only = options_.only;
    return only.empty() || std::ranges::find(only, row(field).stage) != only.end();
  }

  /// Its elements, or hashes of them, can be compared.
  bool judgeable(const FieldResult& result) const {
    const bool held = options_.hash && candidate_.held_field(result.field) != nullptr;
    return !failed(result.verdict) && (held || intake_.upstream.has(result.field));
  }

  void describe() {
    const auto sizes = problem_.sizes();
    case_.problem = problem_.name;
    case_.candidate = candidate_.name;
    case_.producer = candidate_.producer;
    case_.device = candidate_.device;
    case_.contract = contract_.name;
    for (const ProductRow& product : kProducts)
      if (judged_[static_cast<std::size_t>(product.made)])
        case_.accumulators += fmt::format("{}{} {}", case_.accumulators.empty() ? "" : ", ", product.name,
                                          to_string(accumulators_[product.id]));
    case_.config = sizes.config;
    case_.tokens = sizes.tokens;
    case_.seed = problem_.seed;
    case_.remarks = candidate_.remarks;
    add_not_judged(candidate_, judged_, options_.hash != nullptr, case_.remarks);
    const auto& c = case_.config;
    case_.multiply_adds =
        c.hidden_size * (sizes.tokens * c.num_experts + sizes.slots() * c.moe_intermediate_size * 3);
  }

  void intake(Field field) {
    FieldResult result;
    result.field = field;
    intake_.check(field, result);
    case_.fields.push_back(std::move(result));
  }

  CompareContext context(Field field) const { return intake_.context(field, reference_->routing()); }

  void judge_field(FieldResult& result) {
    switch (row(result.field).match) {
      case Match::Exact:
        row(result.field).dtype == DType::Int32 ? judge_integers(result) : judge_rounded(result);
        break;
      case Match::Rounded: judge_rounded(result); break;
      case Match::Selection: judge_selection(result); break;
      case Match::Given: break;
    }
    note_rows_left_out(result, problem_.sizes(), reference_->routing(), invalid_);
    const bool accusing = result.isolated.verdict > Verdict::Passed ||
                          (result.isolated_bits.binding && result.isolated_bits.differing > 0);
    const auto broken = accusing ? broken_upstream(result.field, case_.fields, contract_) : std::nullopt;
    const bool own = !broken || errs_beyond_routing(result, case_.fields, routing_beside(), *reference_);
    if (!own) judge_by_the_chain(result, *broken);
    mistrust_vacuous(result);
    if (own) result.verdict = worst(result.verdict, result.isolated.verdict);
    result.verdict = worst(result.verdict, result.chained.verdict);
    for (const auto* bits : {&result.isolated_bits, &result.chained_bits})
      if (bits->binding && bits->differing > 0) result.verdict = worst(result.verdict, Verdict::Suspect);
    if (options_.causes && !broken && intake_.upstream.has(result.field) &&
        result.verdict > Verdict::Passed && row(result.field).dtype == DType::BFloat16)
      find_causes(result);
  }

  void find_causes(FieldResult& result) {
    // A field that is as its own upstream predicts has inherited its error.
    if (result.isolated.verdict == Verdict::Passed && result.isolated_bits.available &&
        result.isolated_bits.differing == 0)
      return;
    result.causes = reference_->causes(result.field);
    Prediction& bits = result.isolated_bits;
    if (bits.differing > 0 && !result.causes.empty() && result.causes.front().every_bit)
      bits.cause = fmt::format("{}: explains all {} of them", result.causes.front().sentence, bits.differing);
  }

  void judge_integers(FieldResult& result) {
    const auto expected = reference_->expected_integers(result.field);
    result.isolated =
        compare_exact(context(result.field), candidate_.fields.at(result.field).as<std::int32_t>(), expected);
    if (result.field == Field::gather_indices && result.isolated.rejected > 0)
      judge_row_order(result, expected);
    result.chained = result.isolated;
    result.vacuity = vacuity_of_integers(context(result.field), expected);
  }

  /// Rows of an expert in another order are right where none was promised, and aligned by (token, expert).
  void judge_row_order(FieldResult& result, std::vector<std::int32_t> ascending) {
    const auto gather = candidate_.fields.at(result.field).as<std::int32_t>();
    Routing routing = reference_->routing();
    routing.gather = std::move(ascending);
    if (!same_slots_per_expert(routing, gather)) return;
    result.isolated.rejected = 0;
    result.isolated.worst.reset();
    result.isolated.max_ratio = 0.0;
    result.isolated.verdict =
        candidate_.row_order == ExpertRowOrder::Any ? Verdict::Passed : Verdict::Suspect;
    result.notes.push_back(in_another_order(routing, gather, candidate_.row_order));
  }

  bool binding(Field field, Mode mode) const {
    return promises_bits(accumulators_, candidate_.row_order, field,
                         mode == Mode::Isolated && reference_->isolated_from(field).empty(), contract_);
  }

  void judge_rounded(FieldResult& result) {
    result.upstream = reference_->isolated_from(result.field);
    if (const HeldField* held = candidate_.held_field(result.field)) return judge_held(result, *held);
    const StoredSpan out(candidate_.fields.at(result.field), result.dtype);
    for (const Mode mode : {Mode::Isolated, Mode::Chained}) {
      auto& judgement = mode == Mode::Isolated ? result.isolated : result.chained;
      auto& bits = mode == Mode::Isolated ? result.isolated_bits : result.chained_bits;
      if (mode == Mode::Chained && reference_->same_in_both_modes(result.field)) {
        judgement = result.isolated;
        bits = result.isolated_bits;
        continue;
      }
      auto checks = check_rounded(
          statistics_context(context(result.field), mode, *reference_, candidate_.fields, log_share()), out,
          *reference_, mode, binding(result.field, mode), blocks_of(result.field, problem_.sizes()),
          options_.engine, mode == Mode::Chained ? &result.isolated_bits : nullptr);
      judgement = std::move(checks.judgement);
      patterns_.keep(result, mode, std::move(checks.pattern));
      bits = std::move(checks.bits);
      suspect_beyond_limits(judgement, bits);
      for (auto& check : checks.vacuity) {
        check.chained = mode == Mode::Chained;
        if (!check.chained || check.outcome == VacuityOutcome::WouldPass)
          result.vacuity.push_back(std::move(check));
      }
    }
  }

  void judge_held(FieldResult& result, const HeldField& held) {
    const auto check = [&](Mode mode, const HeldChecks* known) {
      return check_held(context(result.field), held, *reference_, mode, binding(result.field, mode),
                        options_.hash, known);
    };
    HeldChecks isolated = check(Mode::Isolated, nullptr);
    HeldChecks chained =
        check(Mode::Chained, reference_->same_predictions(result.field) ? &isolated : nullptr);
    result.notes = isolated.notes;
    if (chained.notes != isolated.notes)
      for (auto& note : chained.notes) result.notes.push_back("chained: " + note);
    result.isolated = std::move(isolated.judgement);
    result.chained = std::move(chained.judgement);
    result.isolated_bits = std::move(isolated.bits);
    result.chained_bits = std::move(chained.bits);
    if (result.isolated_bits.available || result.isolated.elements > 0) result.verdict = Verdict::Passed;
  }

  RoutingBeside routing_beside() const { return {&candidate_.fields, problem_.sizes(), &contract_}; }
  double log_share() const { return log_share_of_field(options_.false_alarm, judged_); }
  RowRange all_logits() const { return all_rows(Field::router_logits, problem_.sizes()); }
  void judge_selection(FieldResult& result) {
    const auto selected = candidate_.fields.at(result.field).as<std::int32_t>();
    const auto& config = problem_.config;
    const auto reference =
        model_logits(reference_->bounded(Field::router_logits, Mode::Chained, all_logits()),
                     reference_->store(Field::router_logits));
    auto chained = check_selection(config, contract_, reference, selected);
    result.chained = std::move(chained.judgement);
    result.chained.statistics = flip_statistics(config, reference, chained.flips, log_share());
    if (const Field logits = Field::router_logits; intake_.upstream.has(logits)) {
      const auto own = exact_logits({candidate_.fields.at(logits), dtype_of(logits, contract_)});
      result.isolated = check_selection(config, contract_, own, selected).judgement;
      if (result.isolated.rejected == 0)
        result.vacuity = vacuity_of_selection(config, contract_, own, selected);
    } else {
      result.upstream = name(Field::router_logits);
      result.isolated = result.chained;
      if (result.isolated.rejected == 0)
        result.vacuity = vacuity_of_selection(config, contract_, reference, selected);
    }
    case_.flips = std::move(chained.flips);
    predict_selection(result, selected);
    suspect_beyond_limits(result.chained, result.chained_bits);
  }

  void predict_selection(FieldResult& result, std::span<const std::int32_t> selected) {
    if (selected.empty() || reference_->predicted(Field::router_logits, Mode::Chained, all_logits()).empty())
      return;
    for (const Mode mode : {Mode::Isolated, Mode::Chained}) {
      std::vector<bool> undetermined;
      const auto predicted = reference_->predicted_selection(mode, undetermined);
      auto& bits = mode == Mode::Isolated ? result.isolated_bits : result.chained_bits;
      bits = compare_predicted_selection(context(result.field), selected, predicted, undetermined);
      bits.binding = binding(result.field, mode);
    }
  }

  const Problem& problem_;
  const Candidate& candidate_;
  const JudgeOptions& options_;
  PrecisionContract contract_;
  Accumulators accumulators_;
  Intake intake_;
  FieldFlags judged_;  // fields that the case has a result for
  std::optional<FoundOrder> order_;
  std::vector<bool> invalid_;  // slots whose ids are no experts; empty where there are none
  FieldSet valid_fields_;      // the candidate's with those replaced
  std::unique_ptr<Reference> reference_;
  CasePatterns patterns_;
  CaseResult case_;
};

}  // namespace

CaseResult judge(const Problem& problem, const Candidate& candidate, const JudgeOptions& options) {
  Judge judge(problem, candidate, options);
  CaseResult result = judge.run();
  if (!judge.order()) return result;
  const Candidate aligned = with_indices(candidate, *judge.order());
  result = Judge(problem, aligned, options).run();
  tell_found_order(result, judge.order()->seen_in);
  return result;
}

}  // namespace assay
