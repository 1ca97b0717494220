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

/// Runs `python3 -m assay_golden export ...` (or $ASSAY_PYTHON) and passes its exit code on.
ExitCode run_exporter(const ExporterCall& call);

}  // namespace assay::cli
