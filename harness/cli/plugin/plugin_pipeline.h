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

/// One run to be judged, and the fields in which another run on the same input has other bits.
struct PluginRun {
  Candidate candidate;
  std::vector<FieldDifference> unstable;
  std::vector<UnknownDataset> unknown;  // of a file
};

/// Throws InputError when the library cannot be loaded or is not a plugin of this interface. One that crashes
/// or hangs while it is loaded is not refused here: that is the verdict of its cases.
void check_plugin(const std::string& path, double time_limit);

/// Runs the layer three times, at most `time_limit` seconds each: on the problem, with the problem's tokens
/// in reverse, on the problem again. One run where both of the problem agree in every byte, else the second
/// and the first: both are to be judged. Throws like check_plugin; InputError when the plugin does not
/// support the problem, CandidateError when it crosses the rules of plugin.h, EndedError when it crashes or
/// hangs; then the next call starts it anew.
std::vector<PluginRun> run_plugin(const std::string& path, const Problem& problem, double time_limit);

/// Runs the layer once, in the process of its earlier runs, so that state which it keeps shows. Throws like
/// run_plugin.
Candidate run_plugin_once(const std::string& path, const Problem& problem, double time_limit);

}  // namespace assay::cli
