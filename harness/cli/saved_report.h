// Reports saved by verify --json.
#pragma once

#include <string>

#include "harness/contract/report.h"

namespace assay::cli {

/// Throws InputError when the file is not there or is no report.
Report read_report(const std::string& path);

}  // namespace assay::cli
