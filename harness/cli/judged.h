// What the judge's tests begin with.
#pragma once

#include <doctest/doctest.h>

#include "harness/judge/judge.h"
#include "reference_cpu/reference_run.h"

namespace assay::cli {

/// Judges with the real reference, or with `factory`'s; an empty contract is the candidate's own.
inline CaseResult judged(const Problem& problem, const Candidate& candidate, std::string_view contract = "",
                         ReferenceFactory factory = make_reference) {
  JudgeOptions options;
  options.reference = std::move(factory);
  options.contract = contract;
  return judge(problem, candidate, options);
}

/// The result of one field; fails the test where the case has none.
inline const FieldResult& of(const CaseResult& result, Field field) {
  for (const auto& one : result.fields)
    if (one.field == field) return one;
  FAIL("no such field");
  throw 0;
}

}  // namespace assay::cli
