// The calls of a plug-in on one problem, each checked for what no implementation may do.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "harness/cli/plugin/placed_problem.h"
#include "harness/cli/plugin/plugin_process.h"
#include "harness/contract/field_set.h"
#include "harness/contract/problem.h"

namespace assay::cli {

/// Values of a problem's tokens, in some order; without a backward pass no gradient.
struct TokenRows {
  std::span<const Bf16> input;            // input_hidden_states [T, H]
  std::span<const Bf16> output_gradient;  // d_hidden_states [T, H]
};

/// Every sentence about a call ends with its `when`: "in its first run on tiny". All throw CandidateError
/// when the plug-in crosses a rule of plugin.h, else as PluginProcess.
class PluginRuns {
 public:
  /// `gradients`: what is wanted of backward; none for forward alone.
  PluginRuns(const std::string& path, PluginProcess& process, const Problem& problem,
             std::vector<PlacedField> gradients, double time_limit);

  bool has_backward() const { return !gradients_.empty(); }
  /// One call of forward: its results. Fields in expert order come without their padding, and not at all
  /// where nothing says where their rows are.
  FieldSet forward(const std::string& when, const TokenRows& tokens);
  /// One call of backward behind the last call of forward: its gradients.
  FieldSet backward(const std::string& when);
  /// Forward and, where it is wanted, backward: results and gradients.
  FieldSet both(const std::string& when, const TokenRows& tokens);

  /// Results of forward as they lie there now, without padding.
  FieldSet results() const { return unpadded(placed_.results()); }
  void verify_inputs(const std::string& when);

  const PluginRow& row() const { return row_; }
  /// Forward's, and where backward runs its.
  std::vector<Field> fields() const;
  /// Tells what was padding, and of fields that it lists and `candidate` has not why they are not read.
  void tell_padding(Candidate& candidate) const;

 private:
  void call(wire::Function function, const std::string& when);
  FieldSet unpadded(FieldSet fields) const;

  const std::string& path_;
  PluginProcess& process_;
  double limit_;
  const PluginRow& row_;
  std::vector<PlacedField> gradients_;
  Sizes sizes_;
  PlacedProblem placed_;
  std::optional<std::vector<std::int64_t>> rows_;  // of experts, in the last forward
};

/// "in backward, in its first run on tiny"
std::string in_backward(const std::string& when);

/// The fields of both: those of `more` are moved.
FieldSet joined(FieldSet fields, FieldSet more);

}  // namespace assay::cli
