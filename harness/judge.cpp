#include "harness/judge.h"

#include <algorithm>
#include <chrono>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/compare.h"
#include "harness/error.h"
#include "harness/headline.h"
#include "harness/selection.h"

namespace assay {
namespace {

/// Shape, dtype and index range come before values. Fills `usable`; gives the verdict of what is wrong.
class Intake {
 public:
  Intake(const Problem& problem, const FieldSet& fields) : sizes_(problem.sizes()), fields_(fields) { upstream.fields = &fields; }

  void check(Field field, FieldResult& result) {
    const FieldRow& what = row(field);
    const Tensor& tensor = fields_.at(field);
    const Shape expected = expected_shape(field, sizes_);
    if (tensor.shape() != expected) {
      result.verdict = Verdict::WrongShape;
      result.notes.push_back(fmt::format("expected shape {}, found {}", to_string(expected), to_string(tensor.shape())));
    } else if (tensor.dtype() != what.dtype) {
      result.verdict = Verdict::WrongDtype;
      result.notes.push_back(fmt::format("expected {}, found {}", row(what.dtype).name, row(tensor.dtype()).name));
    } else if (in_range(field, tensor, result)) {
      upstream.usable[static_cast<std::size_t>(field)] = true;
    }
  }

  Upstream upstream;

 private:
  bool in_range(Field field, const Tensor& tensor, FieldResult& result) {
    std::int64_t limit = 0;
    if (field == Field::selected_experts) limit = sizes_.config.num_experts;
    else if (field == Field::gather_indices) limit = sizes_.slots();
    else return true;
    const auto values = tensor.as<std::int32_t>();
    const auto bad = std::ranges::find_if(values, [&](std::int32_t v) { return v < 0 || v >= limit; });
    if (bad == values.end()) return true;
    result.verdict = Verdict::Failed;
    result.isolated.verdict = Verdict::Failed;
    result.isolated.elements = tensor.size();
    result.isolated.rejected = std::ranges::count_if(values, [&](std::int32_t v) { return v < 0 || v >= limit; });
    result.notes.push_back(fmt::format("element {} is {}, expected 0..{}; later stages use the reference's routing",
                                       bad - values.begin(), *bad, limit - 1));
    return false;
  }

  Sizes sizes_;
  const FieldSet& fields_;
};

bool declared(const Accumulator& accumulator) { return accumulator.kind != AccumulatorKind::Unknown; }

Accumulator assumed(const Accumulator& accumulator) {
  return declared(accumulator) ? accumulator : Accumulator{AccumulatorKind::HopperAnySplit, {}};
}

class Judge {
 public:
  Judge(const Problem& problem, const Candidate& candidate, const JudgeOptions& options)
      : problem_(problem), candidate_(candidate), options_(options),
        contract_(find_contract(options.contract.empty() ? candidate.contract : options.contract)),
        accumulators_(options.accumulators.value_or(candidate.accumulators)), intake_(problem, candidate.fields) {
    contract_.ties = candidate.ties;
  }

  CaseResult run() {
    const auto start = std::chrono::steady_clock::now();
    describe();
    for (const auto& what : kFields)
      if (what.group == Group::Forward) intake(what.id);
    const bool any = std::ranges::any_of(intake_.upstream.usable, [](bool u) { return u; });
    if (any) {
      const bool all_declared = declared(accumulators_.router) && declared(accumulators_.gate_up) && declared(accumulators_.down);
      binding_ = all_declared;
      const bool predict = all_declared || candidate_.from_hopper();
      reference_ = options_.reference(problem_, intake_.upstream, contract_,
                                      {assumed(accumulators_.router), assumed(accumulators_.gate_up), assumed(accumulators_.down)}, predict);
      for (auto& result : case_.fields)
        if (intake_.upstream.has(result.field) && selected(result.field)) judge_field(result);
      const auto& counts = reference_->routing().counts;
      case_.expert_load.assign(counts.begin(), counts.end());
    }
    for (const auto& result : case_.fields) case_.verdict = worst(case_.verdict, result.verdict);
    case_.first_own_error = first_own_error(case_);
    case_.headline = headline(case_);
    case_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(case_);
  }

 private:
  bool selected(Field field) const { return !options_.only || row(field).stage == *options_.only; }

  void describe() {
    const auto sizes = problem_.sizes();
    case_.problem = problem_.name;
    case_.candidate = candidate_.name;
    case_.producer = candidate_.producer;
    case_.device = candidate_.device;
    case_.contract = contract_.name;
    case_.accumulators = fmt::format("router {}, gate_up {}, down {}", to_string(accumulators_.router),
                                     to_string(accumulators_.gate_up), to_string(accumulators_.down));
    case_.config = sizes.config;
    case_.tokens = sizes.tokens;
    case_.seed = problem_.seed;
    case_.remarks = candidate_.remarks;
    const auto& c = sizes.config;
    case_.multiply_adds = sizes.tokens * c.hidden_size * c.num_experts + sizes.slots() * c.hidden_size * c.moe_intermediate_size * 3;
  }

  void intake(Field field) {
    FieldResult result;
    result.field = field;
    if (candidate_.fields.has(field)) intake_.check(field, result);
    case_.fields.push_back(std::move(result));
  }

  CompareContext context(Field field) const {
    return {field, problem_.sizes(), &reference_->routing(), reference_->bound_constant(field), reference_->store(field)};
  }

  void judge_field(FieldResult& result) {
    switch (row(result.field).match) {
      case Match::Exact:
        if (row(result.field).dtype == DType::Int32) judge_integers(result);
        else judge_rounded(result);
        break;
      case Match::Rounded: judge_rounded(result); break;
      case Match::Selection: judge_selection(result); break;
      case Match::Given: break;
    }
    result.verdict = worst(worst(result.verdict, result.isolated.verdict), result.chained.verdict);
    for (const auto* bits : {&result.isolated_bits, &result.chained_bits})
      if (bits->binding && bits->differing > 0) result.verdict = worst(result.verdict, Verdict::Suspect);
    if (result.verdict > Verdict::Passed && row(result.field).dtype == DType::BFloat16) find_causes(result);
  }

  void find_causes(FieldResult& result) {
    // A field that is as its own upstream predicts has inherited its error.
    if (result.isolated.verdict == Verdict::Passed && result.isolated_bits.available && result.isolated_bits.differing == 0) return;
    result.causes = reference_->causes(result.field);
    Prediction& bits = result.isolated_bits;
    if (bits.differing > 0 && !result.causes.empty() && result.causes.front().every_bit)
      bits.cause = fmt::format("{}: explains all {} of them", result.causes.front().sentence, bits.differing);
  }

  void judge_integers(FieldResult& result) {
    result.isolated = compare_exact(context(result.field), candidate_.fields.at(result.field).as<std::int32_t>(),
                                    reference_->expected_integers(result.field));
    result.chained = result.isolated;
  }

  void judge_rounded(FieldResult& result) {
    const auto out = candidate_.fields.at(result.field).as<Bf16>();
    result.upstream = reference_->isolated_from(result.field);
    for (const Mode mode : {Mode::Isolated, Mode::Chained}) {
      auto& judgement = mode == Mode::Isolated ? result.isolated : result.chained;
      auto& bits = mode == Mode::Isolated ? result.isolated_bits : result.chained_bits;
      if (mode == Mode::Chained && reference_->same_in_both_modes(result.field)) {
        judgement = result.isolated;
        bits = result.isolated_bits;
        continue;
      }
      judgement = compare_rounded(context(result.field), out, reference_->bounded(result.field, mode));
      const auto predicted = reference_->predicted(result.field, mode);
      if (predicted.empty() && !out.empty()) continue;
      if (out.empty()) continue;
      bits = compare_predicted(context(result.field), out, predicted);
      bits.binding = binding_;
      bits.accumulator = reference_->accumulator(result.field);
    }
  }

  void judge_selection(FieldResult& result) {
    const auto selected = candidate_.fields.at(result.field).as<std::int32_t>();
    const auto& config = problem_.config;
    if (intake_.upstream.has(Field::router_logits)) {
      std::vector<Interval> own;
      for (const Bf16 l : candidate_.fields.at(Field::router_logits).as<Bf16>()) own.push_back({to_float(l), to_float(l), to_float(l)});
      result.isolated = check_selection(config, contract_, own, selected).judgement;
    } else {
      result.upstream = name(Field::router_logits);
    }
    auto reference = reference_->bounded(Field::router_logits, Mode::Chained);
    for (auto& l : reference) {
      if (reference_->store(Field::router_logits) == Store::Unrounded) continue;
      l = {to_float(round_to_bf16(l.ref)), to_float(round_to_bf16(l.low)), to_float(round_to_bf16(l.high))};
    }
    auto chained = check_selection(config, contract_, reference, selected);
    result.chained = chained.judgement;
    if (!result.upstream.empty()) result.isolated = result.chained;
    case_.flips = std::move(chained.flips);
    predict_selection(result, selected);
  }

  void predict_selection(FieldResult& result, std::span<const std::int32_t> selected) {
    if (selected.empty() || reference_->predicted(Field::router_logits, Mode::Chained).empty()) return;
    for (const Mode mode : {Mode::Isolated, Mode::Chained}) {
      auto& bits = mode == Mode::Isolated ? result.isolated_bits : result.chained_bits;
      std::vector<bool> undetermined;
      const auto predicted = reference_->predicted_selection(mode, undetermined);
      bits.available = true;
      bits.binding = binding_;
      bits.elements = static_cast<std::int64_t>(selected.size());
      for (std::size_t i = 0; i < selected.size(); ++i) {
        const bool unsure = undetermined[i / static_cast<std::size_t>(problem_.config.top_k)];
        const bool differs = !unsure && predicted[i] != selected[i];
        bits.undetermined += unsure;
        bits.differing += differs;
        if (differs && !bits.first) {
          Element e;
          e.at = locate(context(result.field), static_cast<std::int64_t>(i));
          e.out = selected[i];
          e.ref = e.low = e.high = predicted[i];
          bits.first = e;
        }
      }
      bits.as_predicted = bits.elements - bits.undetermined - bits.differing;
    }
  }

  const Problem& problem_;
  const Candidate& candidate_;
  const JudgeOptions& options_;
  PrecisionContract contract_;
  Accumulators accumulators_;
  Intake intake_;
  bool binding_ = false;
  std::unique_ptr<Reference> reference_;
  CaseResult case_;
};

}  // namespace

CaseResult judge(const Problem& problem, const Candidate& candidate, const JudgeOptions& options) {
  return Judge(problem, candidate, options).run();
}

}  // namespace assay
