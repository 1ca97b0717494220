// Whether a dump was computed on the problem that it is judged on.
#pragma once

#include <string>

#include "golden/golden_file.h"

namespace assay::cli {

/// "another down_proj (experts 0, 1)", "hidden_size 72 (here 64)"; empty where the file's config, and those
/// inputs and weights that it has, are the problem's. Weights of one generator are not compared.
std::string difference_of_problem(const Problem& problem, const GoldenFile& file);

}  // namespace assay::cli
