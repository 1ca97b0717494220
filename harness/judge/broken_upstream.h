// Whether a field can be judged by itself: a stage that reads broken values is never accused.
#pragma once

#include <optional>
#include <span>

#include "harness/contract/precision_contract.h"
#include "harness/contract/report.h"

namespace assay {

/// The written field that `field` is computed from, directly or through fields that are not written, and that
/// has failed; nothing where all that it reads is accepted. `judged`: results of the fields before it.
std::optional<Field> broken_upstream(Field field, std::span<const FieldResult> judged,
                                     const PrecisionContract& contract);

/// Takes the accusation back from a field that does not follow from broken values: its isolated judgement is
/// NotJudged, with a note that names what is broken. The chained judgement stands.
void judge_by_the_chain(FieldResult& result, Field broken);

}  // namespace assay
