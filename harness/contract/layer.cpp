#include "harness/contract/layer.h"

#include <algorithm>
#include <vector>

namespace assay {
namespace {

using Lists = std::array<std::vector<Field>, kFieldCount>;

/// Fields that carry rounded values; those of routing are replayed, not recomputed.
bool carries_values(Field field) { return !given(field) && row(field).dtype != DType::Int32; }

Lists all_upstream() {
  Lists lists;
  for (const StepRow& step : kSteps)
    for (const auto& read : step.reads)
      if (read && carries_values(*read)) lists[static_cast<std::size_t>(step.made)].push_back(*read);
  return lists;
}

Lists all_readers() {
  Lists lists;
  for (const StepRow& step : kSteps)
    for (const auto& read : step.reads)
      if (read) lists[static_cast<std::size_t>(*read)].push_back(step.made);
  return lists;
}

}  // namespace

std::span<const Field> upstream_of(Field field) {
  static const Lists lists = all_upstream();
  return lists[static_cast<std::size_t>(field)];
}

std::span<const Field> readers_of(Field field) {
  static const Lists lists = all_readers();
  return lists[static_cast<std::size_t>(field)];
}

std::optional<ProductId> find_product(std::string_view name) {
  const auto found = std::ranges::find(kProducts, name, &ProductRow::name);
  return found == kProducts.end() ? std::nullopt : std::optional(found->id);
}

}  // namespace assay
