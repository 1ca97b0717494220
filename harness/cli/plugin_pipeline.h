// plugin:PATH.so, a layer of somebody else behind harness/host/plugin.h.
#pragma once

#include <string>
#include <vector>

#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"

namespace assay::cli {

/// Throws InputError when the library cannot be loaded or is not a plugin of this interface.
void check_plugin(const std::string& path);

/// Loads the library and runs its layer three times: on the problem, with the problem's tokens in reverse, on
/// the problem again. One candidate where both runs of the problem agree in every byte, else the second and
/// the first: both are to be judged. Throws like check_plugin; InputError when the plugin does not support
/// the problem, CandidateError when it crosses the rules of plugin.h. A crash in the library ends the program
/// with a sentence and exit code 1.
std::vector<Candidate> run_plugin(const std::string& path, const Problem& problem);

}  // namespace assay::cli
