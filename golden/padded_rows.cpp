#include "golden/padded_rows.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include <fmt/format.h>

#include "harness/contract/upstream.h"

namespace assay {
namespace {

std::int64_t rounded_up(std::int64_t count, std::int64_t alignment) {
  return (count + alignment - 1) / alignment * alignment;
}

}  // namespace

std::int64_t most_padded_rows(const Sizes& sizes, std::int64_t alignment) {
  return sizes.slots() + sizes.config.num_experts * (alignment - 1);
}

std::optional<std::vector<std::int64_t>> rows_of_experts(const FieldSet& fields, const Sizes& sizes) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(sizes.config.num_experts), 0);
  const auto readable = [&](Field field) {
    return fields.has(field) && !unusable(field, fields.at(field), sizes);
  };
  if (readable(Field::selected_experts)) {
    for (const auto expert : fields.at(Field::selected_experts).as<std::int32_t>())
      ++counts[static_cast<std::size_t>(expert)];
    return counts;
  }
  if (!readable(Field::token_counts_by_expert)) return std::nullopt;
  std::int64_t left = sizes.slots();
  std::size_t expert = 0;
  for (const auto count : fields.at(Field::token_counts_by_expert).as<std::int32_t>()) {
    if (count < 0 || count > left) return std::nullopt;
    counts[expert++] = count;
    left -= count;
  }
  return left == 0 ? std::optional(counts) : std::nullopt;
}

Tensor without_padding(const Tensor& padded, const Sizes& sizes, std::span<const std::int64_t> counts,
                       std::int64_t alignment) {
  Shape shape = padded.shape();
  const auto rows = static_cast<std::size_t>(std::max<std::int64_t>(1, shape[0]));
  const std::size_t row_bytes = padded.bytes().size() / rows;
  shape[0] = sizes.slots();
  Tensor out(padded.dtype(), shape);
  std::size_t to = 0;
  std::size_t from = 0;
  for (const auto count : counts) {
    if (count == 0) continue;
    const std::size_t bytes = static_cast<std::size_t>(count) * row_bytes;
    std::ranges::copy(padded.bytes().subspan(from, bytes), out.bytes().subspan(to, bytes).begin());
    to += bytes;
    from += static_cast<std::size_t>(rounded_up(count, alignment)) * row_bytes;
  }
  return out;
}

Misstored rows_untold(std::int64_t alignment) {
  return {Verdict::WrongShape, fmt::format("row_alignment {} is declared, and neither selected_experts nor "
                                           "token_counts_by_expert says how many rows an expert has",
                                           alignment)};
}

std::string padding_remark(const Sizes& sizes, std::int64_t alignment, std::int64_t rows) {
  return fmt::format("row_alignment {}: {} of {} rows in expert order are padding, which is not judged",
                     alignment, rows - sizes.slots(), rows);
}

void leave_padding_out(Candidate& candidate, const Sizes& sizes, std::int64_t alignment) {
  if (alignment == 1) return;
  const auto counts = rows_of_experts(candidate.fields, sizes);
  std::int64_t last = 0;  // behind the last expert's last row
  std::int64_t next = 0;
  for (const auto count : counts.value_or(std::vector<std::int64_t>{})) {
    if (count > 0) last = next + count;
    next += rounded_up(count, alignment);
  }
  std::int64_t most = 0;
  for (const FieldRow& field : kFields) {
    if (field.rows != RowsAre::ExpertOrder || !candidate.fields.has(field.id)) continue;
    const Tensor& padded = candidate.fields.at(field.id);
    Shape expected = expected_shape(field.id, sizes);
    std::optional<Misstored> misstored;
    if (!counts)
      misstored = rows_untold(alignment);
    else if (padded.shape()[0] < last)
      misstored = {Verdict::WrongShape,
                   fmt::format("expected at least {} rows, each expert's from a multiple of {} on, found {}",
                               last, alignment, padded.shape()[0])};
    if (misstored) {
      candidate.misstored.insert_or_assign(field.id, *misstored);
      candidate.fields.erase(field.id);
      continue;
    }
    most = std::max(most, padded.shape()[0]);
    candidate.fields.set(field.id, without_padding(padded, sizes, *counts, alignment));
  }
  if (most > 0) candidate.remarks.push_back(padding_remark(sizes, alignment, most));
}

}  // namespace assay
