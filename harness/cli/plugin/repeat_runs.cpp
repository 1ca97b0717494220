#include "harness/cli/plugin/repeat_runs.h"

#include <fmt/format.h>
#include <algorithm>
#include <cstring>
#include <iterator>

#include "harness/contract/digits.h"
#include "harness/judge/matched_rows.h"

namespace assay::cli {
namespace {

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
                                         const FieldSet& second, Repeated repeated) {
  std::vector<FieldDifference> all;
  for (const Field field : fields) {
    if (!first.has(field) || !second.has(field)) continue;
    const Tensor& a = first.at(field);
    const Tensor& b = second.at(field);
    const auto count = differing(a.bytes().data(), b.bytes().data(), a.bytes().size(), width(a));
    if (count > 0) all.push_back({field, count, a.size(), repeated});
  }
  return all;
}

ReversedDifferences reversed_differences(const std::vector<Field>& fields, const FieldSet& run,
                                         const FieldSet& reversed, const Sizes& sizes) {
  RowNumbers tokens = same_tokens(sizes.tokens);
  std::ranges::reverse(tokens);
  const MatchedRows matched(run, sizes, reversed, sizes, std::move(tokens));
  ReversedDifferences all;
  for (const Field field : fields) {
    if (!run.has(field) || !reversed.has(field)) continue;
    // What gather_indices holds is slots, and rows are matched by them.
    if (field == Field::gather_indices) {
      if (matched.rows(Field::first_gemm)) all.compared.push_back(field);
      continue;
    }
    const auto rows = matched.rows(field);
    if (!rows) continue;
    all.compared.push_back(field);
    std::int64_t count = 0;
    visit_differences(run.at(field), reversed.at(field), *rows, matched_width(field, sizes),
                      [&](std::int64_t, std::int64_t) { ++count; });
    if (count > 0) all.differing.push_back({field, count, run.at(field).size(), Repeated::Run});
  }
  return all;
}

std::string in_words(const std::vector<FieldDifference>& differences) {
  std::string words;
  for (const auto& one : differences)
    words += fmt::format("{}{} of {} elements of {}", words.empty() ? "" : ", ",
                         grouped_digits(one.differing), grouped_digits(one.elements), name(one.field));
  return words;
}

std::string unstable_in_words(const std::vector<FieldDifference>& unstable) {
  const auto of = [&](Repeated repeated) {
    std::vector<FieldDifference> some;
    std::ranges::copy_if(unstable, std::back_inserter(some),
                         [&](const FieldDifference& one) { return one.repeated == repeated; });
    return in_words(some);
  };
  std::string words;
  if (const auto run = of(Repeated::Run); !run.empty())
    words = fmt::format("two runs on the same input in the same process differ in {}", run);
  if (const auto backward = of(Repeated::Backward); !backward.empty())
    words += fmt::format("{}the second backward after the same forward differs from the first in {}",
                         words.empty() ? "" : "; ", backward);
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
            fmt::format("unstable: {} of {} elements have other bits in {}", grouped_digits(one.differing),
                        grouped_digits(one.elements),
                        one.repeated == Repeated::Run ? "another run on the same input in the same process"
                                                      : "the second backward after the same forward"));
      }
  const bool by_itself = result.verdict <= Verdict::Passed;
  result.verdict = worst(result.verdict, Verdict::Unstable);
  result.headline = fmt::format("unstable: {}; {}{}", unstable_in_words(unstable),
                                by_itself ? "this run by itself: " : "", result.headline);
}

}  // namespace assay::cli
