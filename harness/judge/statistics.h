// Whether a whole field deviates from its reference more than legal implementations do, though every element
// may lie inside its interval: flipped bits, excess energy and bias against their expectation for this very
// data (NUMERICS: statistics).
#pragma once

#include <span>

#include "harness/judge/compare.h"

namespace assay {

/// What may be taken as independent in a legal implementation.
enum class Dependence {
  Elements,  // sums of their own: a product of stored operands
  Tokens,    // elements of a token share upstream errors
  Nothing,   // every element shares upstream errors with every other: sums over tokens, as weights' gradients
  Classes,   // elements with the same argument share the error of the elementary function
};

struct StatisticsContext {
  CompareContext field;
  Dependence dependence = Dependence::Elements;
  std::span<const Bf16>
      classes;  // [rows, class_stride]: the argument of each element, for Classes; element (r, c) has (r, c)
  std::int64_t class_stride = 0;
  double log_share = 0.0;     // natural logarithm of the false-alarm probability that this call may spend
  bool own_rounding = false;  // errors of its last rounding are told from carried ones (own_rounding.h)
};

/// How many tests of elements share `log_share`: one constant, so that a field's limit does not depend on its
/// shape.
inline constexpr int kTestsPerField = 8;

/// Independent elements are counted once where others repeat the reference's significand (equal or scaled
/// rows and columns). A field without elements, or without finite ones, gives no tests. Cells that an engine
/// has summed are not summed again.
Statistics field_statistics(const StatisticsContext& context, StoredSpan out,
                            std::span<const Interval> reference,
                            const std::optional<FieldCells>& by_engine = {});

struct FieldSums;

/// The same of sums over the whole field (statistics_sums.h).
Statistics statistics_of(const StatisticsContext& context, const FieldSums& sums);

/// Tests of counts and limits for routing, with the same rules: `observed` of `tokens` where at most
/// `expected` are expected.
StatisticalTest count_test(std::string_view measure, std::string_view over, std::int64_t of, double observed,
                           double expected, double log_share);

}  // namespace assay
