#include "harness/judge/beyond_routing.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "harness/contract/digits.h"
#include "harness/contract/layer.h"
#include "harness/contract/stored.h"
#include "harness/judge/broken_upstream.h"
#include "harness/judge/compare.h"

namespace assay {
namespace {

using Flags = std::vector<bool>;
constexpr std::int64_t kMostElements = std::int64_t{1} << 25;  // intervals held at once: 1 GB

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

bool has_failed(std::span<const FieldResult> judged, Field field) {
  const auto result = std::ranges::find(judged, field, &FieldResult::field);
  return result != judged.end() && compared(result->verdict) && failed(result->verdict);
}

/// A failed field other than routing, read directly or through fields that are not written.
bool reads_failed_values(Field field, std::span<const FieldResult> judged,
                         const PrecisionContract& contract) {
  for (const auto& read : find_step(field, contract)->reads) {
    if (!read || given(*read) || row(*read).dtype == DType::Int32) continue;
    if (has_failed(judged, *read)) return true;
    const auto result = std::ranges::find(judged, *read, &FieldResult::field);
    const bool written = result != judged.end() && compared(result->verdict);
    if (!written && reads_failed_values(*read, judged, contract)) return true;
  }
  return false;
}

std::vector<std::int32_t> integers_of(const FieldSet& fields, Field field) {
  const auto values = fields.at(field).as<std::int32_t>();
  return {values.begin(), values.end()};
}

/// The expert of every row as the counts have it; -1 behind their sum.
std::vector<std::int64_t> expert_of_rows(std::span<const std::int32_t> counts, std::int64_t slots) {
  std::vector<std::int64_t> experts(at(slots), -1);
  std::int64_t next = 0;
  for (std::size_t e = 0; e < counts.size(); ++e)
    for (std::int32_t i = 0; i < counts[e] && next < slots; ++i)
      experts[at(next++)] = static_cast<std::int64_t>(e);
  return experts;
}

/// Rows in expert order, and slots, that wrong routing reaches.
struct Reach {
  Flags rows;
  Flags slots;
};

class ReachOfRouting {
 public:
  ReachOfRouting(const RoutingBeside& beside, Reference& reference)
      : fields_(*beside.fields),
        sizes_(beside.sizes),
        reference_(reference),
        ascending_(reference.expected_integers(Field::gather_indices)),
        reach_{Flags(at(sizes_.slots())), Flags(at(sizes_.slots()))} {}

  void of_indices() {
    const auto found = integers_of(fields_, Field::gather_indices);
    for (std::size_t r = 0; r < found.size(); ++r) {
      if (found[r] == ascending_[r]) continue;
      reach_.rows[r] = true;
      reach_slot(found[r]);
      reach_slot(ascending_[r]);
    }
  }

  void of_counts() {
    const auto slots = sizes_.slots();
    const auto found = expert_of_rows(integers_of(fields_, Field::token_counts_by_expert), slots);
    const auto right = expert_of_rows(reference_.routing().counts, slots);
    for (std::int64_t r = 0; r < slots; ++r)
      if (found[at(r)] != right[at(r)]) reach_row(r);
  }

  /// Of a token whose experts are not the largest of its logits in descending order; and every row that
  /// stands elsewhere where those do.
  void of_ids() {
    const auto found = integers_of(fields_, Field::selected_experts);
    const auto right = largest_logits();
    const auto top_k = sizes_.config.top_k;
    for (std::int64_t s = 0; s < sizes_.slots(); ++s) {
      const std::int64_t token = s / top_k * top_k;
      const auto own = [&](const auto& ids) { return std::span(ids).subspan(at(token), at(top_k)); };
      if (!std::ranges::equal(own(found), own(right))) reach_.slots[at(s)] = true;
    }
    const auto order = [&](const std::vector<std::int32_t>& ids) {
      std::vector<std::int64_t> slots(ids.size());
      std::iota(slots.begin(), slots.end(), 0);
      std::ranges::stable_sort(slots, {}, [&](std::int64_t s) { return ids[at(s)]; });
      return slots;
    };
    const auto order_found = order(found);
    const auto order_right = order(right);
    for (std::size_t r = 0; r < order_found.size(); ++r)
      if (order_found[r] != order_right[r] || reach_.slots[at(reference_.routing().gather[r])])
        reach_.rows[r] = true;
  }

  /// An expert's rows may stand in any order, and only its indices say in which: where one is wrong, none of
  /// that expert's tells anything.
  Reach take() {
    const auto& offsets = reference_.routing().offsets;
    for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
      const auto begin = reach_.rows.begin() + offsets[e];
      const auto end = reach_.rows.begin() + offsets[e + 1];
      if (std::find(begin, end, true) == end) continue;
      for (auto r = offsets[e]; r < offsets[e + 1]; ++r) reach_row(r);
    }
    return std::move(reach_);
  }

 private:
  void reach_slot(std::int64_t slot) {
    if (slot >= 0 && slot < sizes_.slots()) reach_.slots[at(slot)] = true;
  }
  void reach_row(std::int64_t r) {
    reach_.rows[at(r)] = true;
    reach_slot(reference_.routing().gather[at(r)]);
    reach_slot(ascending_[at(r)]);
  }

  std::vector<std::int32_t> largest_logits() {
    const RowRange all = all_rows(Field::router_logits, sizes_);
    const auto logits = reference_.bounded(Field::router_logits, Mode::Chained, all);
    const auto experts = sizes_.config.num_experts;
    std::vector<std::int32_t> largest;
    std::vector<std::int32_t> order(at(experts));
    for (std::int64_t t = 0; t < sizes_.tokens; ++t) {
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(order, std::greater<>(),
                               [&](std::int32_t e) { return logits[at(t * experts + e)].ref; });
      largest.insert(largest.end(), order.begin(), order.begin() + sizes_.config.top_k);
    }
    return largest;
  }

  const FieldSet& fields_;
  Sizes sizes_;
  Reference& reference_;
  std::vector<std::int32_t> ascending_;
  Reach reach_;
};

Flags reached_rows(Field field, const Sizes& sizes, const Routing& routing, const Reach& reach) {
  Flags reached(at(rows_of(field, sizes)), true);
  switch (row(field).rows) {
    case RowsAre::ExpertOrder: return reach.rows;
    case RowsAre::Slots: return reach.slots;
    case RowsAre::Tokens:
      for (std::int64_t t = 0; t < sizes.tokens; ++t) {
        const auto first = reach.slots.begin() + t * sizes.config.top_k;
        reached[at(t)] = std::find(first, first + sizes.config.top_k, true) != first + sizes.config.top_k;
      }
      return reached;
    case RowsAre::ExpertMatrix: {
      const auto height = matrix_rows_of(field, sizes);
      for (std::int64_t r = 0; r < std::ssize(reached); ++r) {
        const auto begin = reach.rows.begin() + routing.offsets[at(r / height)];
        const auto end = reach.rows.begin() + routing.offsets[at(r / height) + 1];
        reached[at(r)] = std::find(begin, end, true) != end;
      }
      return reached;
    }
    case RowsAre::Experts: return reached;  // sums over all tokens
  }
  return reached;
}

}  // namespace

bool errs_beyond_routing(FieldResult& result, std::span<const FieldResult> judged,
                         const RoutingBeside& beside, Reference& reference) {
  const Field field = result.field;
  const auto broken = broken_upstream(field, judged, *beside.contract);
  if (!broken || row(*broken).dtype != DType::Int32 || !failed(result.isolated.verdict)) return false;
  if (row(field).dtype == DType::Int32 || !beside.fields->has(field)) return false;
  if (reads_failed_values(field, judged, *beside.contract)) return false;
  const StoredSpan out(beside.fields->at(field), result.dtype);
  if (static_cast<std::int64_t>(out.size()) > kMostElements) return false;
  ReachOfRouting reach(beside, reference);
  if (has_failed(judged, Field::gather_indices)) reach.of_indices();
  if (has_failed(judged, Field::token_counts_by_expert)) reach.of_counts();
  if (has_failed(judged, Field::selected_experts)) reach.of_ids();
  const auto reached = reached_rows(field, beside.sizes, reference.routing(), reach.take());
  const auto intervals = reference.bounded(field, Mode::Isolated, all_rows(field, beside.sizes));
  const auto width = at(width_of(field, beside.sizes));
  std::int64_t beyond = 0;
  for (std::size_t i = 0; i < out.size(); ++i)
    beyond += !reached[i / width] && !accepts(out[i], intervals[i]);
  if (beyond == 0) return false;
  result.notes.push_back(
      fmt::format("{} of its rejected elements lie in rows that the wrong {} does not reach",
                  grouped_digits(beyond), name(*broken)));
  return true;
}

}  // namespace assay
