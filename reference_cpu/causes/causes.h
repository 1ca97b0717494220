// Why a field is wrong: hypotheses are fitted to the elements that differ, synthesised in the predicted
// arithmetic, and ranked by how much of the error they explain. Only for fields that did not pass; the work
// is that of a few evaluations of the field.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "harness/contract/report.h"
#include "harness/contract/stored.h"
#include "reference_cpu/stages.h"

namespace assay {

// What hypotheses ask of elements.
inline float to_float(Stored x) { return x.value; }
inline std::int64_t ordinal(Stored x) { return x.ordinal(); }
inline bool is_nan(Stored x) { return std::isnan(x.value); }
inline bool is_finite(Stored x) { return x.finite(); }

/// A field that did not pass, beside what the reference makes of the candidate's own upstream fields.
struct Evidence {
  Field field{};
  const Layer* layer = nullptr;  // rows in the candidate's order
  std::array<const Values<Predicted>*, kFieldCount>
      inputs{};                                         // stored values of the fields the stage reads, whole
  std::function<const Values<Predicted>&(Field)> read;  // any other field, as the candidate has it
  StoredSpan out;                                       // [rows, width]
  Values<Predicted> plain;                              // the same field predicted, before storing
  StoredSpan reference;                                 // and stored
  std::shared_ptr<const std::vector<float>> kept;       // what `reference` lies in
  std::vector<bool> significant;                        // defines where the error is
  std::vector<float> noise;  // how far legal values lie apart: their intervals' widths
  std::int64_t rows = 0;
  std::int64_t width = 0;

  /// A value as the field stores it.
  Stored stored(double x) const { return stored_as(out.dtype(), x); }
  const Values<Predicted>& input(Field from) const { return *inputs[static_cast<std::size_t>(from)]; }
};

/// Elements that hypotheses are evaluated on: rows and columns of the field, ascending.
struct Window {
  std::vector<std::int64_t> rows;
  std::vector<std::int64_t> columns;
  std::size_t size() const { return rows.size() * columns.size(); }
};

inline constexpr std::size_t kWorthThreads =
    4096;  // elements: below, starting threads costs more than it saves

/// Stored elements of a window under a hypothesis, [window.rows, window.columns].
struct Synthesised {
  Synthesised(std::vector<Stored> values) : elements(std::move(values)) {}  // NOLINT: as lambdas return them
  Synthesised(const std::vector<Bf16>& bits) : elements(bits.begin(), bits.end()) {}  // NOLINT
  std::vector<Stored> elements;
};
using Synthesis = std::function<Synthesised(const Window&)>;

struct Proposal {
  std::string_view hypothesis;  // id (hypotheses.h)
  std::string sentence;         // without the place
  Synthesis synthesise;
  bool names_place = false;  // the sentence already says which rows
  std::optional<Field> unwritten = {};
  std::vector<KBlock> k_blocks = {};  // the regression that proposed it
};

/// What is common to all elements that are wrong.
struct ErrorPlace {
  Window window;         // rows and columns that are wrong: all of the field if the error is everywhere
  Window sample;         // the part of it that hypotheses are fitted to
  std::string in_words;  // "for expert 17", "in the last row of each expert"; empty if everywhere
};

/// A mechanism proposes hypotheses whose parameters it has fitted to the sample.
using Mechanism = std::vector<Proposal> (*)(const Evidence&, const ErrorPlace&);

std::vector<Proposal> propose_observations(const Evidence&,
                                           const ErrorPlace&);  // causes_rows.cpp: zeros, shifted columns
std::vector<Proposal> propose_moved_rows(const Evidence&,
                                         const ErrorPlace&);  // causes_moved.cpp: rows in another order
std::vector<Proposal> propose_moved_tiles(
    const Evidence&,
    const ErrorPlace&);  // causes_tiles.cpp: a block of rows and columns that is another
std::vector<Proposal> propose_scattered(const Evidence&,
                                        const ErrorPlace&);  // causes_rows.cpp: single elements
std::vector<Proposal> propose_columns(const Evidence&,
                                      const ErrorPlace&);  // causes_columns.cpp: columns in another order
std::vector<Proposal> propose_not_finite(
    const Evidence&,
    const ErrorPlace&);  // causes_not_finite.cpp: NaN and Inf swallowed or spread
std::vector<Proposal> propose_logits(const Evidence&, const ErrorPlace&);  // causes_logits.cpp
std::vector<Proposal> propose_storing(const Evidence&,
                                      const ErrorPlace&);  // causes_store.cpp: truncation, scale, flushing
std::vector<Proposal> propose_orders(const Evidence&,
                                     const ErrorPlace&);  // causes_order.cpp: how a product is summed
std::vector<Proposal> propose_k_blocks(const Evidence&,
                                       const ErrorPlace&);  // causes_k_blocks.cpp: stretches of K
std::vector<Proposal> propose_operands(
    const Evidence&,
    const ErrorPlace&);  // causes_operands.cpp: wrong rows, experts, layouts
std::vector<Proposal> propose_swiglu(const Evidence&, const ErrorPlace&);     // causes_swiglu.cpp
std::vector<Proposal> propose_weights(const Evidence&, const ErrorPlace&);    // causes_weights.cpp
std::vector<Proposal> propose_merge(const Evidence&, const ErrorPlace&);      // causes_merge.cpp
std::vector<Proposal> propose_gradients(const Evidence&, const ErrorPlace&);  // causes_gradients.cpp
std::vector<Proposal> propose_other_routing(
    const Evidence&,
    const ErrorPlace&);  // causes_other_routing.cpp: rows of another routing's experts
std::vector<Proposal> propose_other_gradient(
    const Evidence&,
    const ErrorPlace&);  // causes_other_gradient.cpp: rows of another d_hidden_states
std::vector<Proposal> propose_weight_gradients(
    const Evidence&,
    const ErrorPlace&);  // causes_weight_gradients.cpp: rows that gradients of weights are summed over

/// A hypothesis about a step of the backward pass: a fault that the predicted arithmetic can compute.
struct GradientGuess {
  std::string_view id;
  std::string sentence;
  Fault fault;
};

/// causes_gradients.cpp: those about a gradient, written or not.
std::vector<GradientGuess> gradient_guesses(Field field, const Layer& layer);

/// The experts of a trial: those that its own logits choose, or those of the run without a fault, so that
/// only the weights respond to it.
enum class Chosen { Anew, AsWithout };

/// The layer run again with a fault in a field that the candidate did not write.
struct UnwrittenTrials {
  std::function<Values<Predicted>(const Fault&, Chosen)> run;  // the evidence's field, before storing
  bool some_tokens = false;  // the evidence holds some of the tokens only: places have no meaning
  std::function<bool(Field)> rounded_written;  // what the rounding lost is all that was not
};

/// causes_unwritten.cpp: hypotheses about one such field, simplest first.
std::vector<Proposal> propose_unwritten(const Evidence&, const ErrorPlace&, const UnwrittenTrials&,
                                        Field unwritten);

/// Values of a window as `value(row, column)` gives them.
template <class Value>
Synthesis by_element(Value value) {
  return [value](const Window& window) {
    std::vector<Stored> elements;
    elements.reserve(window.size());
    for (const auto r : window.rows)
      for (const auto c : window.columns) elements.push_back(value(r, c));
    return elements;
  };
}

/// Where an element lies in the flat field.
inline std::size_t index(const Evidence& evidence, std::int64_t r, std::int64_t c) {
  return static_cast<std::size_t>(r * evidence.width + c);
}

/// Of a whole field's values, before storing, those of a window as the field stores them.
inline std::vector<Stored> elements_of(const Evidence& evidence, const Values<Predicted>& values,
                                       const Window& window) {
  std::vector<Stored> elements;
  elements.reserve(window.size());
  for (const auto r : window.rows)
    for (const auto c : window.columns)
      elements.push_back(evidence.stored(values[index(evidence, r, c)].value));
  return elements;
}

/// "token", "slot", "expert" or "row", as the field's rows are; and "7", or "2 of expert 1" where rows are an
/// expert's.
std::string_view row_word(Field field);
std::string row_number(const Evidence& evidence, std::int64_t r);
/// "row 3", "tokens 5 to 7".
std::string rows_listed(const Evidence& evidence, const std::vector<std::int64_t>& rows);

/// Compares `out` with the prediction before storing and with the accepted intervals; `inputs` are the
/// caller's to fill. An element is significant if its interval rejects it; if none is, where any bit differs.
Evidence gather_evidence(Field field, const Layer& layer, StoredSpan out, Values<Predicted> plain,
                         std::span<const Interval> bounded);

/// A fitted factor, and what somebody may have written instead: a power of two, one plus one, a short
/// decimal.
std::vector<double> likely_factors(double fitted);

/// Where the error is, and the sample of it.
ErrorPlace find_place(const Evidence& evidence);

inline constexpr std::size_t kListedCauses = 5;

/// Causes that explain the larger part of the error and more than chance gives, best first, at most
/// kListedCauses: of all bits that differ where one gives them all, else of the significant elements.
/// Returns the evidence as it was.
std::vector<Cause> find_causes(Evidence& evidence);

/// Likewise among hypotheses about the fields between the last one that the candidate wrote and this one, the
/// nearest first, up to one that gives every bit.
std::vector<Cause> find_causes(const Evidence& evidence, const UnwrittenTrials& trials,
                               std::span<const Field> unwritten);

/// Tokens to try hypotheses on, ascending: at most so many, half of them those with the most wrong elements.
std::vector<std::int64_t> tokens_to_try(const Evidence& evidence, std::int64_t most);

}  // namespace assay
