// plugin:PATH.so, a layer of somebody else behind harness/host/plugin.h, run in a process of its own.
#pragma once

#include <string>
#include <vector>

#include "golden/golden_file.h"
#include "harness/cli/plugin/repeat_runs.h"
#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"

namespace assay::cli {

inline constexpr double kTimeLimit = 120.0;  // seconds a call of a plug-in may take, unless told

/// What is asked of a plug-in.
struct PluginOptions {
  double time_limit = kTimeLimit;
  bool backward = false;  // where it has a backward function, and the problem d_hidden_states
  bool dX_only = false;   // of backward: no gradients of weights
  bool dW_only = false;   // no gradient of the layer's input
};

/// One run to be judged, and the fields in which another run on the same input has other bits.
struct PluginRun {
  Candidate candidate;
  std::vector<FieldDifference> unstable;
  std::vector<UnknownDataset> unknown;  // of a file
  std::string which = {};               // "first run", "second backward", where it is judged beside another
};

/// What a plug-in is called by, everywhere: "PATH.so", or "PATH.so#CONFIG" for one of the configs it lists.
///
/// Throws InputError when the library cannot be loaded or is not a plugin of this interface. One that crashes
/// or hangs while it is loaded is not refused here: that is the verdict of its cases.
void check_plugin(const std::string& path, double time_limit);

/// All configs that it lists; none where it lists none. Throws like check_plugin, and CandidateError.
std::vector<std::string> plugin_configs(const std::string& path, double time_limit);

/// Runs the layer three times, at most `time_limit` seconds each call: on the problem, with the problem's
/// tokens in reverse, on the problem again. Backward runs once behind each forward, and once more behind the
/// first: what forward saved must still be there. One run where all of the problem agree in every byte; else
/// the second, the first where it differs, and the first with the gradients of its second backward where
/// those differ: all are to be judged. Throws like check_plugin; InputError when the plugin does not support
/// the problem, CandidateError when it crosses the rules of plugin.h, EndedError when it crashes or hangs;
/// then the next call starts it anew.
std::vector<PluginRun> run_plugin(const std::string& path, const Problem& problem,
                                  const PluginOptions& options);

/// Runs the layer once, in the process of its earlier runs, so that state which it keeps shows. Throws like
/// run_plugin.
Candidate run_plugin_once(const std::string& path, const Problem& problem, const PluginOptions& options);

}  // namespace assay::cli
