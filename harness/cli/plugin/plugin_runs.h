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
  /// One call of forward: its results.
  FieldSet forward(const std::string& when, const TokenRows& tokens);
  /// One call of backward behind the last call of forward: its gradients.
  FieldSet backward(const std::string& when);
  /// Forward and, where it is wanted, backward: results and gradients.
  FieldSet both(const std::string& when, const TokenRows& tokens);

  /// Results of forward as they lie there now.
  FieldSet results() const { return placed_.results(); }
  void verify_inputs(const std::string& when);

  const PluginRow& row() const { return row_; }
  /// Forward's, and where backward runs its.
  std::vector<Field> fields() const;

 private:
  void call(wire::Function function, const std::string& when);

  const std::string& path_;
  PluginProcess& process_;
  double limit_;
  const PluginRow& row_;
  std::vector<PlacedField> gradients_;
  PlacedProblem placed_;
};

/// "in backward, in its first run on tiny"
std::string in_backward(const std::string& when);

/// The fields of both: those of `more` are moved.
FieldSet joined(FieldSet fields, FieldSet more);

}  // namespace assay::cli
