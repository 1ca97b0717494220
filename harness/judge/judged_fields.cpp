#include "harness/judge/judged_fields.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/layer.h"
#include "harness/contract/upstream.h"

namespace assay {
namespace {

/// Whether the candidate holds any field that descends from another.
bool holds_any_after(const Candidate& candidate, Field earlier) {
  return std::ranges::any_of(kFields, [&](const FieldRow& field) {
    return descends_from(field.id, earlier) && candidate.holds(field.id);
  });
}

}  // namespace

FieldFlags judged_fields(const Problem& problem, const Candidate& candidate) {
  FieldFlags judged{};
  const bool backward = holds_any_after(candidate, Field::d_hidden_states);
  for (const FieldRow& field : kFields)
    judged[static_cast<std::size_t>(field.id)] =
        computable(field.id, problem) && (backward || !descends_from(field.id, Field::d_hidden_states));
  return judged;
}

std::vector<Unjudged> without_gradient(const Candidate& candidate, const FieldFlags& judged) {
  std::vector<Unjudged> found;
  for (const FieldRow& field : kFields)
    if (find_step(field.id) != nullptr && candidate.holds(field.id) &&
        !judged[static_cast<std::size_t>(field.id)])
      found.push_back({std::string(field.name), "the problem has no d_hidden_states",
                       candidate.fields.has(field.id) ? non_finite(candidate.fields.at(field.id)) : 0});
  return found;
}

void add_not_judged(const Candidate& candidate, const FieldFlags& judged, bool hashes,
                    std::vector<std::string>& remarks) {
  std::vector<std::string_view> by_hashes;
  std::vector<std::string_view> no_gradient;
  for (const FieldRow& field : kFields)
    if (!hashes && candidate.held_field(field.id) != nullptr) by_hashes.push_back(field.name);
  const auto unjudged = without_gradient(candidate, judged);
  for (const auto& one : unjudged) no_gradient.push_back(one.name);
  const auto remark = [&](const std::vector<std::string_view>& names, std::string_view reason) {
    if (!names.empty())
      remarks.push_back(fmt::format("not judged: {} field{} of the backward pass ({}), for {}", names.size(),
                                    names.size() == 1 ? "" : "s", fmt::join(names, ", "), reason));
  };
  remark(no_gradient, "the problem has no d_hidden_states");
  remark(by_hashes, "the file holds hashes in place of elements");
}

}  // namespace assay
