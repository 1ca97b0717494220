// The layer's graph walked in one arithmetic: the reference beside a candidate, predictions, explanations and
// searches of causes are this walk.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "reference_cpu/stages.h"

namespace assay {

/// Blocks of one field may be evaluated by several threads at a time, the last of them after all others have
/// ended: with it goes what the field reads.
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

  /// The same rows of a gradient that is stored in bf16 as it comes from its sum, as nothing but the words in
  /// memory; nothing where `weight_gradient_words` has none, or in bounds.
  std::optional<LargeVector<std::uint16_t>> evaluate_words(Field field, RowRange rows);

  /// The same rows, of one expert's gradient that is stored in bf16 as it comes from its sum, as intervals
  /// that the layer's engine made and keeps (kept_weight_gradient); null where it keeps none.
  std::shared_ptr<const KeptIntervals> evaluate_kept(Field field, RowRange rows, bool above_underflow);

  /// The field as it stands in memory, where it is kept, taken for evaluated: what it reads for the last time
  /// is given back. Valid as `value` is.
  const Values<A>& passed_over(Field field);

  /// The field as it stands in memory: stored, or evaluated and rounded. Valid until the next call of
  /// `evaluate`.
  const Values<A>& value(Field field);

  /// The field as the step that makes `reader` sees it, which under some contracts is in no memory. Valid as
  /// `value` is.
  const Values<A>& seen(Field reader, Field field);

  /// Takes what was evaluated, before it is stored, for what readers see.
  void keep(Field field, Values<A> evaluated);
  /// The same of those among `all` that a fault in `fault` does not reach.
  void keep_unreached(Field fault, const std::map<Field, Values<A>>& all);
  bool holds(Field field) const { return kept_[0][static_cast<std::size_t>(field)].has_value(); }
  void forget(Field field);

 private:
  enum class Lives {
    InMemory,   // as the contract stores the field
    Unrounded,  // in registers, before that
    Formed,     // something else in its place: the weight comes after the product
  };
  struct View {
    Field field{};
    Lives lives{};
  };
  View view(Field reader, Field field) const;
  std::vector<View> views(Field reader) const;
  std::optional<Values<A>>& slot(const View& view) {
    return kept_[static_cast<std::size_t>(view.lives)][static_cast<std::size_t>(view.field)];
  }
  int& readers(const View& view) {
    return readers_[static_cast<std::size_t>(view.lives)][static_cast<std::size_t>(view.field)];
  }
  using Reads = std::array<const Values<A>*, kFieldCount>;
  template <class Step>
  auto with_reads(Field field, RowRange rows, const Step& step);
  Values<A> formed(Field reader, Field field);
  Values<A> planted_step(Field field);
  bool straight_gradient(Field field) const;
  void count_readers();
  void count_reads(const std::vector<View>& reads);
  void give_back();

  const Layer& layer_;
  Upstream stored_;
  FieldFlags asked_;
  bool counted_ = false;
  std::array<std::array<std::optional<Values<A>>, kFieldCount>, 3> kept_;
  std::array<std::array<int, kFieldCount>, 3> readers_{};  // still to come
  std::vector<View> done_;                                 // read for the last time by the steps before
  int running_ = 0;                                        // evaluations: within one another, or side by side
  std::recursive_mutex mutex_;                             // of all these; not while a step computes
};

/// The rounded fields between the last ones that the candidate wrote and this one, the nearest first.
std::vector<Field> unwritten_before(Field field, const Upstream& upstream, const PrecisionContract& contract);

/// Fields that the candidate offers: those that will be judged.
FieldFlags offered(const Upstream& upstream);

/// The graph walked twice: from the candidate's own fields, and from the inputs.
template <class A>
struct Walks {
  Evaluator<A> isolated;
  Evaluator<A> chained;

  Walks(const Layer& isolated_layer, const Layer& layer, const Upstream& upstream)
      : isolated(isolated_layer, upstream, offered(upstream)), chained(layer, {}, offered(upstream)) {}
  Evaluator<A>& in(Mode mode) { return mode == Mode::Isolated ? isolated : chained; }
};

}  // namespace assay
