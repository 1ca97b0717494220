// The layer's graph walked in one arithmetic: the reference beside a candidate, predictions, explanations and
// searches of causes are this walk.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "reference_cpu/stages.h"

namespace assay {

template <class A>
class Evaluator {
 public:
  /// Fields of `stored` are read as they are, all others evaluated; what `asked` holds and its ancestors are
  /// expected to be evaluated once each, so that a value can be given back after the last of its readers.
  /// `layer` may change between calls and must outlive the evaluator.
  Evaluator(const Layer& layer, const Upstream& stored, const FieldFlags& asked);

  /// A field that carries values, recomputed from what its step reads, before it is stored. Throws InputError
  /// for others.
  Values<A> evaluate(Field field);

  /// The same of rows [begin, end) alone, all experts' matrices counted through (`blocks_of`). Weight
  /// gradients are computed for these rows and no others, so that nobody holds all of them; what they read is
  /// given back after the block that ends the field.
  Values<A> evaluate_rows(Field field, RowRange rows);

  /// The field as its readers see it: stored, or evaluated and rounded. Valid until the next call of
  /// `evaluate`.
  const Values<A>& value(Field field);

  /// Takes a value for what readers see.
  void keep(Field field, Values<A> stored) { slot(field) = std::move(stored); }
  bool holds(Field field) const { return kept_[static_cast<std::size_t>(field)].has_value(); }
  void forget(Field field) { slot(field).reset(); }

 private:
  std::optional<Values<A>>& slot(Field field) { return kept_[static_cast<std::size_t>(field)]; }
  bool read_unrounded(Field field) const;
  Values<A> planted_step(Field field);
  const Values<A>& read(Field field, Field by);
  void give_back();

  const Layer& layer_;
  Upstream stored_;
  std::array<std::optional<Values<A>>, kFieldCount> kept_;
  std::optional<Values<A>> unrounded_;      // what a planted fault reads in place of the stored value
  std::array<int, kFieldCount> readers_{};  // still to come
  std::vector<Field> done_;                 // read for the last time by the steps before
  int depth_ = 0;                           // of evaluations within evaluations
};

}  // namespace assay
