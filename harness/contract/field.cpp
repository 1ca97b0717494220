#include "harness/contract/field.h"

#include <algorithm>

namespace assay {
namespace {

constexpr std::string_view kStageNames[] = {
    "Input",     "Weight", "Router",    "TopK",     "Permute",    "GateUp",     "Swiglu",     "Down",
    "Unpermute", "Merge",  "MergeGrad", "DownGrad", "SwigluGrad", "GateUpGrad", "RouterGrad", "InputGrad",
};
static_assert(std::size(kStageNames) == static_cast<std::size_t>(Stage::InputGrad) + 1);

struct DimRow {
  std::string_view symbol;
  std::string_view axis;
};
constexpr DimRow kDims[] = {
    {"-", "-"},    {"T", "token"}, {"H", "col"}, {"E", "expert"},
    {"K", "slot"}, {"S", "row"},   {"I", "col"}, {"2I", "col"},
};
static_assert(std::size(kDims) == static_cast<std::size_t>(Dim::TwoI) + 1);

}  // namespace

std::string_view name(Stage stage) { return kStageNames[static_cast<std::size_t>(stage)]; }

std::string_view name(Group group) {
  constexpr std::string_view names[] = {"inputs", "weights", "forward", "backward"};
  return names[static_cast<std::size_t>(group)];
}

std::string_view name(Match match) {
  constexpr std::string_view names[] = {"given", "exact", "rounded", "selection"};
  return names[static_cast<std::size_t>(match)];
}

std::string_view symbol(Dim dim) { return kDims[static_cast<std::size_t>(dim)].symbol; }

std::string_view axis_name(Field field, std::size_t axis) {
  const auto& shape = row(field).shape;
  const bool inner = axis > 0 && axis + 1 < shape.size() && shape[axis + 1] != Dim::None;
  return inner ? "row" : kDims[static_cast<std::size_t>(shape[axis])].axis;
}

std::optional<Field> find_field(std::string_view name) {
  const auto found = std::ranges::find(kFields, name, &FieldRow::name);
  return found == kFields.end() ? std::nullopt : std::optional(found->id);
}

std::optional<Stage> find_stage(std::string_view name) {
  const auto found = std::ranges::find(kStageNames, name);
  if (found == std::end(kStageNames)) return std::nullopt;
  return static_cast<Stage>(found - std::begin(kStageNames));
}

std::int64_t extent(Dim dim, const Sizes& sizes) {
  switch (dim) {
    case Dim::T: return sizes.tokens;
    case Dim::H: return sizes.config.hidden_size;
    case Dim::E: return sizes.config.num_experts;
    case Dim::K: return sizes.config.top_k;
    case Dim::S: return sizes.slots();
    case Dim::I: return sizes.config.moe_intermediate_size;
    case Dim::TwoI: return 2 * sizes.config.moe_intermediate_size;
    case Dim::None: break;
  }
  return 1;
}

Shape expected_shape(Field field, const Sizes& sizes) {
  Shape shape;
  for (const Dim dim : row(field).shape)
    if (dim != Dim::None) shape.push_back(extent(dim, sizes));
  return shape;
}

std::int64_t rows_of(Field field, const Sizes& sizes) {
  const auto& shape = row(field).shape;
  std::int64_t rows = extent(shape[0], sizes);
  for (std::size_t axis = 1; axis + 1 < shape.size() && shape[axis + 1] != Dim::None; ++axis)
    rows *= extent(shape[axis], sizes);
  return rows;
}

std::int64_t width_of(Field field, const Sizes& sizes) {
  const Shape shape = expected_shape(field, sizes);
  return shape.size() < 2 ? 1 : shape.back();
}

RowRange all_rows(Field field, const Sizes& sizes) { return {0, rows_of(field, sizes)}; }

std::int64_t matrix_rows_of(Field field, const Sizes& sizes) { return extent(row(field).shape[1], sizes); }

std::vector<RowRange> blocks_of(Field field, const Sizes& sizes) {
  const std::int64_t rows = rows_of(field, sizes);
  if (row(field).rows != RowsAre::ExpertMatrix) return {{0, rows}};
  const std::int64_t matrix = matrix_rows_of(field, sizes);
  const std::int64_t at_a_time =
      std::max<std::int64_t>(1, kBlockElements / (matrix * width_of(field, sizes))) * matrix;
  std::vector<RowRange> blocks;
  for (std::int64_t begin = 0; begin < rows; begin += at_a_time)
    blocks.push_back({begin, std::min(begin + at_a_time, rows)});
  return blocks;
}

}  // namespace assay
