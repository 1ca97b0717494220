#include "harness/cli/plugin/plugin_runs.h"

#include <fmt/format.h>

#include "golden/padded_rows.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

// Beside a room of the host nothing is mapped; on a device other allocations follow.
constexpr std::int64_t kGuardOnHost = 4096;
constexpr std::int64_t kGuardOnDevice = 256 << 10;

}  // namespace

std::string in_backward(const std::string& when) { return "in backward, " + when; }

FieldSet joined(FieldSet fields, FieldSet more) {
  for (const FieldRow& field : kFields)
    if (more.has(field.id)) fields.set(field.id, std::move(more.at(field.id)));
  return fields;
}

PluginRuns::PluginRuns(const std::string& path, PluginProcess& process, const Problem& problem,
                       std::vector<PlacedField> gradients, double time_limit)
    : path_(path),
      process_(process),
      limit_(time_limit),
      row_(process.row(time_limit)),
      gradients_(std::move(gradients)),
      sizes_(problem.sizes()),
      placed_(problem, row_.results, gradients_, row_.device ? kGuardOnDevice : kGuardOnHost,
              row_.row_alignment) {
  process_.place(placed_, time_limit);
}

void PluginRuns::call(wire::Function function, const std::string& when) {
  process_.run(placed_, function, limit_, when);
  if (const std::string sentence = placed_.broken_results_guard(); !sentence.empty())
    throw CandidateError(fmt::format("{}: {}, {}", path_, sentence, when));
}

FieldSet PluginRuns::forward(const std::string& when, const TokenRows& tokens) {
  placed_.prepare(tokens.input, tokens.output_gradient);
  call(wire::Function::Forward, when);
  FieldSet fields = placed_.results();
  rows_ = rows_of_experts(fields, sizes_);
  return unpadded(std::move(fields));
}

FieldSet PluginRuns::backward(const std::string& when) {
  placed_.prepare_gradients();
  call(wire::Function::Backward, when);
  return unpadded(placed_.gradients());
}

FieldSet PluginRuns::unpadded(FieldSet fields) const {
  if (row_.row_alignment == 1) return fields;
  for (const FieldRow& field : kFields) {
    if (field.rows != RowsAre::ExpertOrder || !fields.has(field.id)) continue;
    if (rows_)
      fields.set(field.id, without_padding(fields.at(field.id), sizes_, *rows_, row_.row_alignment));
    else
      fields.erase(field.id);
  }
  return fields;
}

void PluginRuns::tell_padding(Candidate& candidate) const {
  if (row_.row_alignment == 1) return;
  for (const Field field : fields())
    if (!candidate.fields.has(field)) candidate.misstored.emplace(field, rows_untold(row_.row_alignment));
  candidate.remarks.push_back(
      padding_remark(sizes_, row_.row_alignment, most_padded_rows(sizes_, row_.row_alignment)));
}

FieldSet PluginRuns::both(const std::string& when, const TokenRows& tokens) {
  FieldSet fields = forward(when, tokens);
  return has_backward() ? joined(std::move(fields), backward(in_backward(when))) : fields;
}

void PluginRuns::verify_inputs(const std::string& when) {
  std::optional<wire::Reply> seen;
  if (row_.device) seen = process_.fingerprints(placed_, limit_);
  if (const std::string sentence = placed_.changed_input(seen ? &*seen : nullptr); !sentence.empty())
    throw CandidateError(fmt::format("{}: {}, {}", path_, sentence, when));
}

std::vector<Field> PluginRuns::fields() const {
  std::vector<Field> all;
  for (const auto* some : {&row_.results, &gradients_})
    for (const PlacedField& placed : *some) all.push_back(placed.field);
  return all;
}

}  // namespace assay::cli
