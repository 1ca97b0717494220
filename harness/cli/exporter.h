// Calls the Python exporter, which runs the real HuggingFace module.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/contract/exit_code.h"

namespace assay::cli {

struct ExporterCall {
  std::vector<std::string> fixtures;
  std::string implementation;
  std::string out;
  std::string checkpoint;
  std::int64_t layer = -1;
  std::string prompt;
};

/// Runs `python3 -m WORDS...` (or $ASSAY_PYTHON) of the package assay_golden; returns its exit code. Throws
/// InputError where it cannot be started or is stopped by a signal.
int run_assay_golden(std::vector<std::string> words);

/// Runs `python3 -m assay_golden export ...` (or $ASSAY_PYTHON) and passes its exit code on.
ExitCode run_exporter(const ExporterCall& call);

}  // namespace assay::cli
