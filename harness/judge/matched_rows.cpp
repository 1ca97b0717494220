#include "harness/judge/matched_rows.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace assay {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// The integers of a field as it must be, or nothing.
std::optional<std::span<const std::int32_t>> integers(const FieldSet& run, Field field, const Sizes& sizes) {
  if (!run.has(field)) return std::nullopt;
  const Tensor& tensor = run.at(field);
  if (tensor.dtype() != DType::Int32 || tensor.shape() != expected_shape(field, sizes)) return std::nullopt;
  return tensor.as<std::int32_t>();
}

std::optional<std::span<const std::int32_t>> experts(const FieldSet& run, const Sizes& sizes) {
  const auto selected = integers(run, Field::selected_experts, sizes);
  if (!selected ||
      std::ranges::any_of(*selected, [&](std::int32_t e) { return e < 0 || e >= sizes.config.num_experts; }))
    return std::nullopt;
  return selected;
}

/// The slot of each row in expert order: as gather_indices tells, else sorted stably by expert.
std::optional<RowNumbers> slot_of_row(const FieldSet& run, const Sizes& sizes) {
  const std::int64_t slots = sizes.slots();
  RowNumbers all(at(slots), -1);
  if (run.has(Field::gather_indices)) {
    const auto gather = integers(run, Field::gather_indices, sizes);
    if (!gather) return std::nullopt;
    std::vector<bool> seen(at(slots));
    for (std::int64_t r = 0; r < slots; ++r) {
      const std::int32_t slot = (*gather)[at(r)];
      if (slot < 0 || slot >= slots || seen[at(slot)]) return std::nullopt;
      seen[at(slot)] = true;
      all[at(r)] = slot;
    }
    return all;
  }
  const auto selected = experts(run, sizes);
  if (!selected) return std::nullopt;
  std::iota(all.begin(), all.end(), std::int64_t{0});
  std::ranges::stable_sort(all, {}, [&](std::int64_t slot) { return (*selected)[at(slot)]; });
  return all;
}

/// Values of a token's slots, side by side.
bool beside_each_other(Field field) {
  return row(field).shape[1] == Dim::K && row(field).match != Match::Selection;
}

}  // namespace

RowNumbers same_tokens(std::int64_t tokens) {
  RowNumbers all(at(tokens));
  std::iota(all.begin(), all.end(), std::int64_t{0});
  return all;
}

std::int64_t matched_width(Field field, const Sizes& sizes) {
  return beside_each_other(field) ? 1 : width_of(field, sizes);
}

MatchedRows::MatchedRows(const FieldSet& a, const Sizes& sizes_a, const FieldSet& b, const Sizes& sizes_b,
                         RowNumbers tokens)
    : sizes_a_(sizes_a), sizes_b_(sizes_b), tokens_(std::move(tokens)) {
  RowNumbers sorted = tokens_;
  std::ranges::sort(sorted);
  same_tokens_ = sorted == same_tokens(sizes_a.tokens);
  same_places_ = tokens_ == same_tokens(sizes_a.tokens);
  const std::int64_t top_k = sizes_b.config.top_k;
  const auto of_a = experts(a, sizes_a);
  const auto of_b = experts(b, sizes_b);
  slots_.assign(at(sizes_b.slots()), -1);
  for (std::int64_t slot = 0; slot < sizes_b.slots(); ++slot) {
    const std::int64_t token = tokens_[at(slot / top_k)];
    if (token < 0) continue;
    if (!of_a || !of_b) {
      slots_[at(slot)] = token * top_k + slot % top_k;
      continue;
    }
    const auto its = of_a->subspan(at(token * top_k), at(top_k));
    const auto found = std::ranges::find(its, (*of_b)[at(slot)]);
    if (found != its.end()) slots_[at(slot)] = token * top_k + (found - its.begin());
  }
  slot_of_row_b_ = slot_of_row(b, sizes_b);
  if (const auto rows_a = slot_of_row(a, sizes_a)) {
    row_of_slot_a_.emplace(rows_a->size());
    for (std::size_t r = 0; r < rows_a->size(); ++r)
      (*row_of_slot_a_)[at((*rows_a)[r])] = static_cast<std::int64_t>(r);
  }
}

std::optional<RowNumbers> MatchedRows::rows(Field field) const {
  if (beside_each_other(field)) return slots_;
  switch (row(field).rows) {
    case RowsAre::Tokens: return tokens_;
    case RowsAre::Slots: return slots_;
    case RowsAre::Experts:
    case RowsAre::ExpertMatrix:
      // Counts are of tokens in any order; gradients of weights are sums in theirs.
      if (!same_tokens_ || (row(field).match == Match::Rounded && !same_places_)) return std::nullopt;
      return same_tokens(rows_of(field, sizes_a_));
    case RowsAre::ExpertOrder: break;
  }
  if (field == Field::gather_indices) {
    if (!same_places_) return std::nullopt;
    return same_tokens(rows_of(field, sizes_a_));
  }
  if (!row_of_slot_a_ || !slot_of_row_b_) return std::nullopt;
  RowNumbers all = *slot_of_row_b_;
  for (std::int64_t& one : all) one = slots_[at(one)] < 0 ? -1 : (*row_of_slot_a_)[at(slots_[at(one)])];
  return all;
}

std::int64_t MatchedRows::token_of(Field field, std::int64_t r) const {
  const std::int64_t top_k = sizes_b_.config.top_k;
  if (beside_each_other(field)) return r / top_k;
  switch (row(field).rows) {
    case RowsAre::Tokens: return r;
    case RowsAre::Slots: return r / top_k;
    case RowsAre::ExpertOrder: return slot_of_row_b_ ? (*slot_of_row_b_)[at(r)] / top_k : -1;
    case RowsAre::Experts:
    case RowsAre::ExpertMatrix: break;
  }
  return -1;
}

std::int64_t visit_differences(const Tensor& a, const Tensor& b, std::span<const std::int64_t> rows,
                               std::int64_t width,
                               const std::function<void(std::int64_t, std::int64_t)>& visit) {
  const std::size_t size = row(b.dtype()).size;
  const std::size_t bytes = size * at(width);
  std::int64_t compared = 0;
  for (std::int64_t r = 0; r < static_cast<std::int64_t>(rows.size()); ++r) {
    if (rows[at(r)] < 0) continue;
    compared += width;
    const std::byte* of_a = a.bytes().data() + at(rows[at(r)]) * bytes;
    const std::byte* of_b = b.bytes().data() + at(r) * bytes;
    if (std::memcmp(of_a, of_b, bytes) == 0) continue;
    for (std::int64_t c = 0; c < width; ++c)
      if (std::memcmp(of_a + at(c) * size, of_b + at(c) * size, size) != 0)
        visit(rows[at(r)] * width + c, r * width + c);
  }
  return compared;
}

}  // namespace assay
