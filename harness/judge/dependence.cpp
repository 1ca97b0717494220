#include "harness/judge/dependence.h"

#include <algorithm>
#include <cmath>

#include "harness/contract/layer.h"

namespace assay {
namespace {

/// Steps that sum many errors of one shape, or copy such sums.
bool sums_carried_errors(Field field) {
  const StepKind kind = find_step(field)->kind;
  return kind == StepKind::Product || kind == StepKind::Unpermute || kind == StepKind::Merge ||
         kind == StepKind::Combine || kind == StepKind::AddRouter;
}

/// Steps that share the rounding errors of one exponential, or of one sum, among the elements of a token.
bool shares_errors_of_token(Field field) {
  const StepKind kind = find_step(field)->kind;
  return kind == StepKind::Weights || kind == StepKind::SoftmaxGrad || kind == StepKind::SwigluGrad;
}

}  // namespace

StatisticsContext statistics_context(const CompareContext& context, Mode mode, const Reference& reference,
                                     const FieldSet& fields, double log_share) {
  StatisticsContext statistics{context, Dependence::Elements, {}, 0, log_share};
  const Field field = context.field;
  const RowsAre rows = row(field).rows;
  const bool own = mode == Mode::Isolated && reference.isolated_from(field).empty();
  if (!own && (rows == RowsAre::Experts || rows == RowsAre::ExpertMatrix)) {
    statistics.dependence = Dependence::Nothing;
  } else if (!own || shares_errors_of_token(field)) {
    statistics.dependence = Dependence::Tokens;
    statistics.own_rounding = sums_carried_errors(field);
  } else if (field == Field::intermediate) {
    statistics.dependence = Dependence::Classes;
    statistics.classes = fields.at(Field::first_gemm).as<Bf16>();
    statistics.class_stride = 2 * context.sizes.config.moe_intermediate_size;
  }
  return statistics;
}

double log_share_of_field(double false_alarm, const FieldFlags& judged) {
  const auto fields = std::ranges::count_if(kFields, [&](const FieldRow& f) {
    return judged[static_cast<std::size_t>(f.id)] && f.dtype == DType::BFloat16;
  });
  return std::log(false_alarm) - std::log(2.0 * static_cast<double>(fields) + 1.0);
}

}  // namespace assay
