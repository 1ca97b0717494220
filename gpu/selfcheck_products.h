// Sampled elements of a candidate's products against the tensor core's model on the host.
#pragma once

#include <cstdint>

#include "harness/contract/candidate.h"
#include "harness/contract/layer.h"
#include "harness/contract/problem.h"

namespace assay::gpu {

/// How many of `samples` elements of the product's field, drawn at random, are not the model's sum of the
/// candidate's own upstream fields, rounded once. The problem has tokens, the candidate the fields that are
/// read.
std::int64_t count_samples_that_differ(const Problem& problem, const Candidate& candidate, ProductId product,
                                       int samples);

}  // namespace assay::gpu
