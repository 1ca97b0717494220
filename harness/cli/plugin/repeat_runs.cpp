#include "harness/cli/plugin/repeat_runs.h"

#include <fmt/format.h>
#include <algorithm>
#include <cstring>
#include <optional>

#include "harness/contract/digits.h"

namespace assay::cli {
namespace {

using RowNumbers = std::vector<std::int64_t>;

/// The row of each slot in expert order, or nothing where the run does not say. Sorted stably by expert,
/// unless gather_indices tells.
std::optional<RowNumbers> row_of_slot(const FieldSet& run, const Sizes& sizes) {
  const std::int64_t slots = sizes.slots(), experts = sizes.config.num_experts;
  RowNumbers rows(static_cast<std::size_t>(slots), -1);
  if (run.has(Field::gather_indices)) {
    std::int64_t row = 0;
    for (const std::int32_t slot : run.at(Field::gather_indices).as<std::int32_t>()) {
      if (slot < 0 || slot >= slots || rows[static_cast<std::size_t>(slot)] >= 0) return std::nullopt;
      rows[static_cast<std::size_t>(slot)] = row++;
    }
    return rows;
  }
  if (!run.has(Field::selected_experts)) return std::nullopt;
  const auto selected = run.at(Field::selected_experts).as<std::int32_t>();
  if (std::ranges::any_of(selected, [&](std::int32_t e) { return e < 0 || e >= experts; }))
    return std::nullopt;
  RowNumbers order(rows.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
  std::ranges::stable_sort(order, {}, [&](std::int64_t s) { return selected[static_cast<std::size_t>(s)]; });
  for (std::size_t r = 0; r < order.size(); ++r)
    rows[static_cast<std::size_t>(order[r])] = static_cast<std::int64_t>(r);
  return rows;
}

std::size_t width(const Tensor& tensor) { return row(tensor.dtype()).size; }

/// Elements of two stretches of `bytes` that differ.
std::int64_t differing(const std::byte* a, const std::byte* b, std::size_t bytes, std::size_t width) {
  if (std::memcmp(a, b, bytes) == 0) return 0;
  std::int64_t count = 0;
  for (std::size_t i = 0; i < bytes; i += width) count += std::memcmp(a + i, b + i, width) != 0;
  return count;
}

}  // namespace

std::vector<FieldDifference> differences(const std::vector<Field>& fields, const FieldSet& first,
                                         const FieldSet& second) {
  std::vector<FieldDifference> all;
  for (const Field field : fields) {
    const Tensor &a = first.at(field), &b = second.at(field);
    const auto count = differing(a.bytes().data(), b.bytes().data(), a.bytes().size(), width(a));
    if (count > 0) all.push_back({field, count, a.size()});
  }
  return all;
}

ReversedDifferences reversed_differences(const std::vector<Field>& fields, const FieldSet& run,
                                         const FieldSet& reversed, const Sizes& sizes) {
  const std::int64_t tokens = sizes.tokens, top_k = sizes.config.top_k;
  const auto slot_there = [&](std::int64_t slot) {
    return (tokens - 1 - slot / top_k) * top_k + slot % top_k;
  };
  const auto here = row_of_slot(run, sizes), there = row_of_slot(reversed, sizes);
  ReversedDifferences all;
  for (const Field field : fields) {
    const Tensor &a = run.at(field), &b = reversed.at(field);
    const bool slot_order = field == Field::hidden_states_unpermute;
    const bool expert_order = row(field).shape[0] == Dim::S && !slot_order;
    if (expert_order && (!here || !there)) continue;
    all.compared.push_back(field);
    const std::int64_t rows = a.shape().empty() ? 0 : a.shape()[0];
    const std::size_t bytes = rows == 0 ? 0 : a.bytes().size() / static_cast<std::size_t>(rows);
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      std::int64_t mine = i, its = i;  // token_counts_by_expert: no token in it
      if (expert_order) {
        mine = (*here)[static_cast<std::size_t>(i)];
        its = (*there)[static_cast<std::size_t>(slot_there(i))];
      } else if (slot_order) {
        its = slot_there(i);
      } else if (row(field).shape[0] == Dim::T) {
        its = tokens - 1 - i;
      }
      // What gather_indices holds is slots, and the rows were matched by them.
      if (field == Field::gather_indices) continue;
      count += differing(a.bytes().data() + static_cast<std::size_t>(mine) * bytes,
                         b.bytes().data() + static_cast<std::size_t>(its) * bytes, bytes, width(a));
    }
    if (count > 0) all.differing.push_back({field, count, a.size()});
  }
  return all;
}

std::string in_words(const std::vector<FieldDifference>& differences) {
  std::string words;
  for (const auto& [field, differing, elements] : differences)
    words += fmt::format("{}{} of {} elements of {}", words.empty() ? "" : ", ", grouped_digits(differing),
                         grouped_digits(elements), name(field));
  return words;
}

void mark_unstable(CaseResult& result, const std::vector<FieldDifference>& unstable) {
  if (unstable.empty()) return;
  for (const FieldDifference& one : unstable)
    for (FieldResult& field : result.fields)
      if (field.field == one.field) {
        field.verdict = worst(field.verdict, Verdict::Unstable);
        field.notes.insert(
            field.notes.begin(),
            fmt::format("unstable: {} of {} elements have other bits in another run on the same "
                        "input in the same process",
                        grouped_digits(one.differing), grouped_digits(one.elements)));
      }
  const bool by_itself = result.verdict <= Verdict::Passed;
  result.verdict = worst(result.verdict, Verdict::Unstable);
  result.headline = fmt::format("unstable: two runs on the same input in the same process differ in {}; {}{}",
                                in_words(unstable), by_itself ? "this run by itself: " : "", result.headline);
}

}  // namespace assay::cli
