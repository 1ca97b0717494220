#include "harness/judge/row_alignment.h"

#include <algorithm>

#include <fmt/format.h>

#include "harness/judge/compare.h"

namespace assay {
namespace {

constexpr std::int64_t kMostRows =
    16384;  // of one expert: each is compared with each, to the first difference

bool row_accepted(std::span<const Bf16> out, std::span<const Interval> reference) {
  for (std::size_t c = 0; c < out.size(); ++c)
    if (!accepts(out[c], reference[c])) return false;
  return true;
}

}  // namespace

std::optional<std::vector<std::int32_t>> align_rows(const Routing& routing, std::span<const Bf16> out,
                                                    std::span<const Interval> reference) {
  std::vector<std::int32_t> gather = routing.gather;
  if (gather.empty()) return std::nullopt;
  const std::size_t width = out.size() / gather.size();
  const auto out_row = [&](std::int64_t r) {
    return out.subspan(static_cast<std::size_t>(r) * width, width);
  };
  const auto reference_row = [&](std::int64_t r) {
    return reference.subspan(static_cast<std::size_t>(r) * width, width);
  };
  for (std::size_t e = 0; e + 1 < routing.offsets.size(); ++e) {
    const std::int64_t begin = routing.offsets[e];
    const std::int64_t end = routing.offsets[e + 1];
    if (end - begin > kMostRows) return std::nullopt;
    std::vector<bool> taken(static_cast<std::size_t>(end - begin));
    std::vector<std::int64_t> moved;
    for (std::int64_t r = begin; r < end; ++r)
      if (row_accepted(out_row(r), reference_row(r)))
        taken[static_cast<std::size_t>(r - begin)] = true;
      else
        moved.push_back(r);
    for (const std::int64_t r : moved) {
      std::int64_t from = begin;
      while (from < end && (taken[static_cast<std::size_t>(from - begin)] ||
                            !row_accepted(out_row(r), reference_row(from))))
        ++from;
      if (from == end) return std::nullopt;
      taken[static_cast<std::size_t>(from - begin)] = true;
      gather[static_cast<std::size_t>(r)] = routing.gather[static_cast<std::size_t>(from)];
    }
  }
  if (gather == routing.gather) return std::nullopt;
  return gather;
}

std::string in_another_order(const Routing& ascending, std::span<const std::int32_t> gather,
                             ExpertRowOrder declared) {
  std::int64_t count = 0;
  std::int64_t first = -1;
  for (std::size_t e = 0; e + 1 < ascending.offsets.size(); ++e) {
    const auto begin = static_cast<std::size_t>(ascending.offsets[e]);
    const auto rows = static_cast<std::size_t>(ascending.offsets[e + 1]) - begin;
    if (std::ranges::equal(std::span(ascending.gather).subspan(begin, rows), gather.subspan(begin, rows)))
      continue;
    if (count++ == 0) first = static_cast<std::int64_t>(e);
  }
  return fmt::format(
      "rows of {} stand in another order than ascending slots{}; each was compared with its own token's",
      count == 1 ? fmt::format("expert {}", first)
                 : fmt::format("{} experts (the first is {})", count, first),
      declared == ExpertRowOrder::Any ? ", as row_order any allows" : ", and row_order any is not declared");
}

Candidate with_indices(const Candidate& candidate, const FoundOrder& order) {
  Candidate aligned = candidate;
  Tensor gather(DType::Int32, {std::ssize(order.gather)});
  std::ranges::copy(order.gather, gather.as<std::int32_t>().begin());
  aligned.fields.set(Field::gather_indices, std::move(gather));
  return aligned;
}

void tell_found_order(CaseResult& result, Field seen_in) {
  const auto of = [&](Field one) -> FieldResult& {
    return *std::ranges::find(result.fields, one, &FieldResult::field);
  };
  FieldResult& indices = of(Field::gather_indices);
  FieldResult& field = of(seen_in);
  field.notes.push_back(indices.notes.front() + ", found by the rows' values");
  if (result.first_own_error == Field::gather_indices) {
    field.verdict = worst(field.verdict, Verdict::Suspect);
    result.first_own_error = seen_in;
    result.own_error_place = name(seen_in);
    result.headline = fmt::format("{}: {}", name(seen_in), field.notes.back());
  }
  indices = {};
  indices.field = Field::gather_indices;
}

}  // namespace assay
