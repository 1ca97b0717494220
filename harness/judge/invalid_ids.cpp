#include "harness/judge/invalid_ids.h"

#include <algorithm>

#include <fmt/format.h>

#include "harness/contract/layer.h"
#include "harness/contract/stored.h"

namespace assay {
namespace {

bool left_out(Field field, std::int64_t row_index, const Sizes& sizes, const Routing& routing,
              const std::vector<bool>& invalid) {
  if (!descends_from(field, Field::selected_experts)) return false;
  const auto slot_is = [&](std::int64_t slot) { return invalid[static_cast<std::size_t>(slot)]; };
  switch (row(field).rows) {
    case RowsAre::ExpertOrder: return slot_is(routing.gather[static_cast<std::size_t>(row_index)]);
    case RowsAre::Slots: return slot_is(row_index);
    case RowsAre::Tokens: {
      const std::int64_t k = sizes.config.top_k;
      for (std::int64_t j = 0; j < k; ++j)
        if (slot_is(row_index * k + j)) return true;
      return false;
    }
    case RowsAre::Experts:
    case RowsAre::ExpertMatrix: break;
  }
  return false;
}

class WithoutInvalidRows final : public Reference {
 public:
  WithoutInvalidRows(std::unique_ptr<Reference> reference, const Sizes& sizes, const FieldSet& fields,
                     const std::vector<bool>& invalid)
      : all_(std::move(reference)), sizes_(sizes), fields_(fields), invalid_(invalid) {}

  LargeVector<Interval> bounded(Field field, Mode mode, RowRange rows) override {
    auto values = all_->bounded(field, mode, rows);
    for_each_left_out(field, rows, values.size(), [&](std::size_t i, Stored out) {
      const double x = out.value;
      values[i] = {x, x, x};
    });
    return values;
  }
  LargeVector<PredictedBits> predicted(Field field, Mode mode, RowRange rows) override {
    auto bits = all_->predicted(field, mode, rows);
    for_each_left_out(field, rows, bits.size(), [&](std::size_t i, Stored) { bits[i].undetermined = true; });
    return bits;
  }
  std::vector<std::int32_t> expected_integers(Field field) override { return all_->expected_integers(field); }
  std::vector<std::int32_t> predicted_selection(Mode mode, std::vector<bool>& undetermined) override {
    return all_->predicted_selection(mode, undetermined);
  }
  Store store(Field field) const override { return all_->store(field); }
  BoundAccount bound_account(Field field, Mode mode, std::span<const std::int64_t> elements) override {
    return all_->bound_account(field, mode, elements);
  }
  bool same_in_both_modes(Field field) const override { return all_->same_in_both_modes(field); }
  std::string isolated_from(Field field) const override { return all_->isolated_from(field); }
  const Routing& routing() const override { return all_->routing(); }
  std::vector<Cause> causes(Field field) override { return all_->causes(field); }
  ConfirmedValues confirmed() const override { return all_->confirmed(); }
  std::string accumulator(Field field) const override { return all_->accumulator(field); }

 private:
  template <class Visit>
  void for_each_left_out(Field field, RowRange rows, std::size_t count, Visit visit) {
    if (count == 0 || !fields_.has(field)) return;
    const StoredSpan out(fields_.at(field), fields_.at(field).dtype());
    const auto width = static_cast<std::size_t>(width_of(field, sizes_));
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
      if (!left_out(field, r, sizes_, all_->routing(), invalid_)) continue;
      const auto to = static_cast<std::size_t>(r - rows.begin) * width;
      const auto from = static_cast<std::size_t>(r) * width;
      for (std::size_t c = 0; c < width; ++c) visit(to + c, out[from + c]);
    }
  }

  std::unique_ptr<Reference> all_;
  Sizes sizes_;
  const FieldSet& fields_;
  const std::vector<bool>& invalid_;
};

}  // namespace

std::vector<bool> invalid_slots(std::span<const std::int32_t> selected, std::int64_t experts) {
  std::vector<bool> invalid(selected.size());
  for (std::size_t s = 0; s < selected.size(); ++s) invalid[s] = selected[s] < 0 || selected[s] >= experts;
  return invalid;
}

std::vector<std::int32_t> repaired_selection(std::span<const std::int32_t> selected,
                                             std::span<const std::int32_t> right,
                                             const std::vector<bool>& invalid, std::int64_t top_k) {
  std::vector<std::int32_t> repaired(selected.begin(), selected.end());
  const auto k = static_cast<std::size_t>(top_k);
  for (std::size_t s = 0; s < repaired.size(); ++s) {
    if (!invalid[s]) continue;
    const std::size_t token = s / k * k;
    const auto own = std::span(repaired).subspan(token, k);
    for (const std::int32_t expert : right.subspan(token, k)) {
      if (std::ranges::find(own, expert) != own.end()) continue;
      repaired[s] = expert;
      break;
    }
  }
  return repaired;
}

std::unique_ptr<Reference> without_invalid_rows(std::unique_ptr<Reference> reference, const Sizes& sizes,
                                                const FieldSet& fields, const std::vector<bool>& invalid) {
  return std::make_unique<WithoutInvalidRows>(std::move(reference), sizes, fields, invalid);
}

void note_rows_left_out(FieldResult& result, const Sizes& sizes, const Routing& routing,
                        const std::vector<bool>& invalid) {
  std::int64_t count = 0;
  for (std::int64_t r = 0; !invalid.empty() && r < rows_of(result.field, sizes); ++r)
    count += left_out(result.field, r, sizes, routing, invalid);
  if (count > 0)
    result.notes.push_back(fmt::format("{} of its rows are not compared: their ids are no experts", count));
}

}  // namespace assay
