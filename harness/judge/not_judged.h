// What a file holds and nobody judged: told in the headline, and no pass where it holds NaN or infinity.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"
#include "harness/contract/report.h"

namespace assay {

/// A field or dataset beside those that were judged.
struct Unjudged {
  std::string name;             // "d_gate", "/forward/hidden_state"
  std::string why;              // "the problem has no d_hidden_states", "it is not part of the schema"
  std::int64_t non_finite = 0;  // of its values
  std::string meant = {};       // "/backward/d_gate": what its name is likely to stand for
};

/// How many values are NaN or infinite.
std::int64_t non_finite(const Tensor& tensor);

/// The field whose name a dataset's path ends with, but for a slip or two of the pen, for a part left out or
/// for HuggingFace's way of saying it; empty where none is near.
std::string_view likely_field(std::string_view path);

/// Counts them in the headline. A case that would pass, whose inputs, weights and judged fields are finite
/// and which holds other values among them, is NonFinite; else these values are a remark.
void tell_not_judged(CaseResult& result, const Problem& problem, const Candidate& candidate,
                     const std::vector<Unjudged>& unjudged);

/// Whether every rounded field of the case holds nothing but NaN: it confirms nothing.
bool nothing_but_nan(const CaseResult& result, const Candidate& candidate);

}  // namespace assay
