#include "harness/contract/layer.h"

#include <algorithm>
#include <vector>

namespace assay {
namespace {

using Lists = std::array<std::vector<Field>, kFieldCount>;

std::size_t at(Field field) { return static_cast<std::size_t>(field); }

/// Fields that carry rounded values; those of routing are replayed, not recomputed.
bool carries_values(Field field) { return !given(field) && row(field).dtype != DType::Int32; }

/// The steps of one contract, followed both ways.
struct StepGraph {
  Lists upstream;
  Lists readers;
  std::array<FieldFlags, kFieldCount> ancestors{};

  explicit StepGraph(const PrecisionContract& contract) {
    for (const StepRow& step : kSteps)
      for (const auto& read : find_step(step.made, contract)->reads) {
        if (!read) continue;
        if (carries_values(*read)) upstream[at(step.made)].push_back(*read);
        readers[at(*read)].push_back(step.made);
      }
    for (const Field made : kEvaluationOrder)
      for (const auto& read : find_step(made, contract)->reads) {
        if (!read) continue;
        ancestors[at(made)][at(*read)] = true;
        for (const FieldRow& field : kFields)
          if (ancestors[at(*read)][at(field.id)]) ancestors[at(made)][at(field.id)] = true;
      }
  }
};

/// One graph for each choice of the members that change what is read.
const StepGraph& graph_of(const PrecisionContract& contract) {
  static const std::vector<StepGraph> graphs = [] {
    std::vector<StepGraph> all;
    for (const auto from : {WeightGradientFrom::OutputDotRow, WeightGradientFrom::Activation})
      for (const auto side : {WeightSide::OutputGradient, WeightSide::AfterProduct})
        all.emplace_back(
            PrecisionContract{.name = "", .summary = "", .weight_side = side, .d_weights_from = from});
    return all;
  }();
  return graphs[2 * static_cast<std::size_t>(contract.d_weights_from) +
                static_cast<std::size_t>(contract.weight_side)];
}

}  // namespace

bool descends_from(Field later, Field earlier, const PrecisionContract& contract) {
  return graph_of(contract).ancestors[at(later)][at(earlier)];
}
std::span<const Field> upstream_of(Field field, const PrecisionContract& contract) {
  return graph_of(contract).upstream[at(field)];
}
std::span<const Field> readers_of(Field field, const PrecisionContract& contract) {
  return graph_of(contract).readers[at(field)];
}

bool descends_from(Field later, Field earlier) { return descends_from(later, earlier, kContracts.front()); }
std::span<const Field> upstream_of(Field field) { return upstream_of(field, kContracts.front()); }
std::span<const Field> readers_of(Field field) { return readers_of(field, kContracts.front()); }

std::optional<ProductId> find_product(std::string_view name) {
  const auto found = std::ranges::find(kProducts, name, &ProductRow::name);
  return found == kProducts.end() ? std::nullopt : std::optional(found->id);
}

}  // namespace assay
