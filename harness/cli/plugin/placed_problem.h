// A problem and the room for its results, where a plug-in's process sees them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "harness/cli/plugin/plugin_wire.h"
#include "harness/cli/plugin/room_images.h"
#include "harness/contract/field_set.h"
#include "harness/contract/problem.h"
#include "harness/host/shared_memory.h"

namespace assay::cli {

class PlacedProblem {
 public:
  /// Writes inputs and weights, with gradients the output's gradient, too, and those of before that the
  /// problem has, in the gradients' types; `results` of forward and `gradients` get rooms. Throws InputError,
  /// also when memory runs out. Fields in expert order get room for rows of experts that begin at multiples
  /// of `row_alignment`.
  PlacedProblem(const Problem& problem, const std::vector<PlacedField>& results,
                const std::vector<PlacedField>& gradients, std::int64_t guard, std::int64_t row_alignment);

  wire::Request request(wire::Kind kind, wire::Function function = wire::Function::Forward) const;
  int problem_descriptor() const { return inputs_.read_only_descriptor(); }
  int results_descriptor() const { return results_.descriptor(); }

  /// Before forward: other values of input_hidden_states [T, H] and, where it has a room, of d_hidden_states
  /// [T, H]; results and gradients poisoned between whole guards.
  void prepare(std::span<const Bf16> input, std::span<const Bf16> output_gradient);
  /// Before backward: gradients poisoned between whole guards. Results stay as they are.
  void prepare_gradients();
  /// The sentence for the first guard of a result or gradient that is not whole, or empty.
  std::string broken_results_guard() const;
  /// With their padding, where rows have an alignment.
  FieldSet results() const;
  FieldSet gradients() const;
  /// The sentence for the first input that is not what was written, or empty: here and, where `seen` has
  /// fingerprints of copies, there. The input's values must be those of the last prepare().
  std::string changed_input(const wire::Reply* seen);

 private:
  struct Layout {
    std::vector<wire::Room> inputs;
    std::vector<wire::Room> results;  // and gradients, behind them
    std::int64_t input_bytes = 0;
    std::int64_t result_bytes = 0;
  };
  Layout lay_out(const Problem& problem, const std::vector<PlacedField>& results,
                 const std::vector<PlacedField>& gradients, std::int64_t guard) const;
  Shape shape_of(Field field) const;
  void write(const wire::Room& room, const Problem& problem);
  FieldSet read(wire::Role role) const;

  Sizes sizes_;
  std::int64_t row_alignment_;
  Layout layout_;
  SharedMemory inputs_;
  SharedMemory results_;
  // of inputs as written
  std::vector<std::uint64_t> payloads_;
  std::vector<std::uint64_t> guards_;
};

}  // namespace assay::cli
