// Whether an implementation gives a token the same bits whatever else is computed beside it: run to run, in
// other batches, in another order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "harness/contract/field.h"
#include "harness/contract/verdict.h"

namespace assay {

/// What may be promised.
enum class Invariant { Run, Batch, Order };
inline constexpr Invariant kInvariants[] = {Invariant::Run, Invariant::Batch, Invariant::Order};

/// "run", "batch", "order".
constexpr std::string_view name(Invariant of) {
  constexpr std::string_view names[] = {"run", "batch", "order"};
  return names[static_cast<std::size_t>(of)];
}

/// One field under one change, over all its runs.
struct ChangedField {
  Field field{};
  std::int64_t tokens = 0;            // compared, once per run they are in; 0 for fields of experts
  std::int64_t differing_tokens = 0;  // with any other bit
  std::int64_t elements = 0;
  std::int64_t differing = 0;
};

/// A change of what is computed beside a token: "batch of 16", "reversed".
struct InvarianceChange {
  std::string name;
  Invariant of = Invariant::Run;
  std::int64_t runs = 0;
  std::int64_t differing_runs = 0;
  std::vector<ChangedField> fields = {};  // those that could be compared, in the order of the table
  std::optional<Field> first = {};        // that differs, in order of evaluation
  // Of the first run that differs, judged on its own problem.
  std::optional<Verdict> judged = {};
  std::string judged_headline = {};

  bool differs() const { return first.has_value(); }
};

/// One implementation on one problem.
struct InvarianceCase {
  std::string problem;
  std::string candidate;
  std::vector<InvarianceChange> changes;
};

}  // namespace assay
