// What the errors of a legal implementation share, and what share of the false alarms a field may spend.
#pragma once

#include "harness/contract/reference.h"
#include "harness/judge/statistics.h"

namespace assay {

/// What a legal implementation makes independent errors of (Dependence). `fields`: the candidate's.
StatisticsContext statistics_context(const CompareContext& context, Mode mode, const Reference& reference,
                                     const FieldSet& fields, double log_share);

/// The logarithm of the share of `false_alarm` of one statistical judgement of a case: every bf16 field
/// isolated and chained, and the router's flips.
double log_share_of_field(double false_alarm, const FieldFlags& judged);

}  // namespace assay
