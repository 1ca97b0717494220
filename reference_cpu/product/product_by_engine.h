// Products by the engine they are offered to (harness/contract/engine.h), accepted only where sampled rows
// equal this library's own.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "harness/contract/engine.h"
#include "harness/contract/large_vector.h"

namespace assay {

/// [rows, n], or nothing where the product names no engine or that leaves the product to the CPU. `own`
/// computes the sampled rows. Throws InputError when a sampled element is not what `own` gives: bits of
/// predictions, and for intervals every member to 1e-3 of the bound's half width, so that the engine's own
/// error can move no verdict that the bound does not leave open.
template <class Value>
std::optional<LargeVector<Value>> product_by_engine(
    const GroupedProduct<Value>& product,
    const std::function<LargeVector<Value>(const GroupedProduct<Value>&)>& own);

/// The same of bounds that the engine keeps, complete as `errors` say; null where it is left to others.
std::shared_ptr<const KeptIntervals> product_kept_by_engine(
    const GroupedProduct<Interval>& product, const CommonErrors& errors,
    const std::function<LargeVector<Interval>(const GroupedProduct<Interval>&)>& own);

/// The product as the engine predicts it, or false where it declines. Engines leave rows with an undetermined
/// operand to a sum in fp32, but whatever its value, its sum has the declared order: they are asked without
/// the flags.
bool predict_by_engine(const Engine& engine, const GroupedProduct<PredictedValue>& product,
                       std::span<PredictedValue> out);

}  // namespace assay
