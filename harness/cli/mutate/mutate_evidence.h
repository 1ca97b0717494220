// What `assay mutate` measured, put together for the page and the document.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "harness/cli/mutate/mutation.h"
#include "reports/sensitivity_report.h"

namespace assay::cli {

/// Bytes of a file of evidence, at most.
inline constexpr std::size_t kMostEvidence = std::size_t{1} << 24;

/// Mutations of one contract, and recorded evidence: JSON files of `--curves`, `--correct` and `--scores`,
/// told apart by what they hold. Throws InputError naming a file that is neither.
Sensitivity sensitivity(std::span<const Mutation> mutations,
                        const std::vector<std::filesystem::path>& evidence, const std::string& command);

}  // namespace assay::cli
