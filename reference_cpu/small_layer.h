// A layer small enough to write down, for the tests of stages.
#pragma once

#include <string_view>

#include "reference_cpu/stages.h"

namespace assay {

/// One token, two experts, H = 1: everything can be written down.
struct SmallLayer {
  Problem problem;
  Layer layer;
  explicit SmallLayer(std::string_view contract) {
    problem.config = {1, 1, 2, 2, true};
    problem.sequence = 1;
    layer.problem = &problem;
    layer.contract = &find_contract(contract);
    layer.routing = get_token_counts_and_gather_indices(problem.config, {1, 0});
  }
};

}  // namespace assay
