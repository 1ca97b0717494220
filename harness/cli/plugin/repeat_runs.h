// Whether runs of one implementation give the same bits: the same input again, and its tokens in reverse.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/contract/field_set.h"
#include "harness/contract/report.h"

namespace assay::cli {

/// What was done once more on the same input: everything, or backward behind the same call of forward.
enum class Repeated { Run, Backward };

struct FieldDifference {
  Field field{};
  std::int64_t differing = 0;
  std::int64_t elements = 0;
  Repeated repeated = Repeated::Run;
};

/// Fields of two runs on the same input that differ in any bit. One that a run has not, for nothing in it
/// says where its rows are, differs by the field that says so in the other run.
std::vector<FieldDifference> differences(const std::vector<Field>& fields, const FieldSet& first,
                                         const FieldSet& second, Repeated repeated = Repeated::Run);

struct ReversedDifferences {
  std::vector<FieldDifference> differing;
  std::vector<Field> compared;
};

/// A run on the tokens in reverse, put back into the order of `run`: token t there is T - 1 - t, rows in
/// expert order are matched by slot. Rows in expert order are left out where neither gather_indices nor
/// selected_experts says which slot they belong to, and gradients of weights, sums in the tokens' order.
ReversedDifferences reversed_differences(const std::vector<Field>& fields, const FieldSet& run,
                                         const FieldSet& reversed, const Sizes& sizes);

/// "1 of 3,120 elements of first_gemm, 4 of 96 of hidden_states"
std::string in_words(const std::vector<FieldDifference>& differences);

/// "two runs on the same input in the same process differ in ...", "the second backward differs in ..."
std::string unstable_in_words(const std::vector<FieldDifference>& unstable);

/// Two runs or two calls of backward on the same input differ: the fields and the case become at least
/// Unstable, and the headline says so first.
void mark_unstable(CaseResult& result, const std::vector<FieldDifference>& unstable);

}  // namespace assay::cli
