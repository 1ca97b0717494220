// What the judge needs of a reference: per field, the accepted interval of every element and its predicted
// bits.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "harness/contract/accumulator.h"
#include "harness/contract/field_set.h"
#include "harness/contract/held_field.h"
#include "harness/contract/interval.h"
#include "harness/contract/large_vector.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/problem.h"
#include "harness/contract/report.h"

namespace assay {

struct Engine;
struct KeptIntervals;

/// Isolated: a stage recomputed from the candidate's own upstream fields. Chained: everything from the
/// problem's inputs, with the candidate's routing replayed.
enum class Mode { Isolated, Chained };

/// The stored bits that the declared arithmetic gives, or "undetermined" outside what was measured.
struct PredictedBits {
  std::uint32_t bits = 0;  // 16 of a bf16 field, 32 of a float32 one
  bool undetermined = false;
};

/// Rows in expert order. `gather[r]` is the flat slot t * K + j of row r; expert e owns rows offsets[e] ..
/// offsets[e + 1].
struct Routing {
  std::vector<std::int32_t> selected;  // [T, K]
  std::vector<std::int32_t> counts;    // [E]
  std::vector<std::int64_t> offsets;   // [E + 1]
  std::vector<std::int32_t> gather;    // [S]
};

/// Both bounds of one element of a product, before the last rounding (NUMERICS 3). Whichever is smaller is in
/// force, or none where the element is exact in any order.
struct BoundPair {
  double magnitude = 0.0;  // sum |a||b|
  double a_priori = 0.0;   // holds for every order
  std::optional<double>
      running;  // holds for the declared order, where one is declared and the left operand is exact
};

/// How a field's bounds are made, in words, and what they are of some elements.
struct BoundAccount {
  std::string a_priori;
  std::string running;
  std::vector<BoundPair> elements;  // empty for fields without a product
};

struct ConfirmedValues {
  std::int64_t values = 0;  // agree within what float64 loses
  std::int64_t of = 0;
};

class Reference {
 public:
  virtual ~Reference() = default;

  /// [rows, width of field] for a rounded field: a block of blocks_of(field), or all_rows(field) where that
  /// is one block. Throws InputError for rows that the reference does not make by themselves. Blocks of one
  /// field may be asked for by several threads at a time, the last one after all others have come.
  virtual LargeVector<Interval> bounded(Field field, Mode mode, RowRange rows) = 0;
  /// The same of an expert's matrix, or rows of one, where the engine makes them and keeps them (engine.h);
  /// null otherwise: `bounded` has them.
  virtual std::shared_ptr<const KeptIntervals> kept(Field, Mode, RowRange) { return nullptr; }
  /// The same rows' stored bits on the declared accumulators; empty when no accumulator is declared or
  /// assumed. May be called while another thread is in `bounded`.
  virtual LargeVector<PredictedBits> predicted(Field field, Mode mode, RowRange rows) = 0;
  /// Whether the first prediction of a field finds out how it is summed, which its bounds depend on: it has
  /// to come before they are asked for.
  virtual bool predicts_first(Field, Mode) const { return false; }
  /// The same of a bf16 field as nothing but its words, where the reference makes those at once and none of
  /// them is undetermined; nothing otherwise: `predicted` has them.
  virtual std::optional<LargeVector<std::uint16_t>> predicted_words(Field, Mode, RowRange) { return {}; }
  /// token_counts_by_expert and gather_indices of the replayed routing.
  virtual std::vector<std::int32_t> expected_integers(Field field) = 0;
  /// Predicted selected_experts with torch's order of ties, from the candidate's logits or from the inputs.
  /// The flag of a token is true where the prediction is undetermined.
  virtual std::vector<std::int32_t> predicted_selection(Mode mode,
                                                        std::vector<bool>& undetermined_tokens) = 0;
  /// The rounding of the field when it is stored.
  virtual Store store(Field field) const = 0;
  /// Where the field's bounds come from; of a product also both bounds of each of `elements` (flat indices).
  virtual BoundAccount bound_account(Field field, Mode mode, std::span<const std::int64_t> elements) = 0;
  /// Whether both modes see the same upstream values, so that one evaluation serves.
  virtual bool same_in_both_modes(Field field) const = 0;
  /// Whether both modes predict the same bits, since all that the field is computed from is as predicted.
  virtual bool same_predictions(Field) { return false; }
  /// Where the isolated evaluation started: empty, or the span "from first_gemm" when upstream fields are
  /// missing.
  virtual std::string isolated_from(Field field) const = 0;
  virtual const Routing& routing() const = 0;
  /// Hypotheses that explain why the candidate's field differs from what its own upstream fields give, best
  /// first; empty when none explains a good part of the error. Costs a few evaluations of the field: asked
  /// for fields that did not pass only.
  virtual std::vector<Cause> causes(Field field) = 0;
  /// Values handed out so far that an independent program was asked for, too, and how many of them it
  /// confirmed.
  virtual ConfirmedValues confirmed() const { return {}; }
  /// The accumulator in force for the field's product ("hopper"), empty for fields without a product.
  virtual std::string accumulator(Field field) const = 0;
};

/// What a candidate offers to the isolated checks: fields of right shape, dtype and index range only.
struct Upstream {
  const FieldSet* fields = nullptr;
  FieldFlags usable{};
  const std::vector<HeldField>* held = nullptr;  // stored rows tell how cuBLAS split K
  bool has(Field field) const {
    return fields != nullptr && usable[static_cast<std::size_t>(field)] && fields->has(field);
  }
};

/// Makes a reference beside one candidate. `accumulators` are the declared ones, or what is assumed of an
/// undeclared Hopper candidate; `predict` switches predicted bits off altogether; `engine` is offered the
/// reference's products, null for none. All arguments must outlive the result.
using ReferenceFactory = std::function<std::unique_ptr<Reference>(
    const Problem& problem, const Upstream& upstream, const PrecisionContract& contract,
    const Accumulators& accumulators, bool predict, const Engine* engine)>;

}  // namespace assay
