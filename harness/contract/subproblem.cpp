#include "harness/contract/subproblem.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "harness/contract/layer.h"

namespace assay {
namespace {

std::vector<std::int64_t> all(std::int64_t count) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(count));
  std::iota(indices.begin(), indices.end(), 0);
  return indices;
}

std::vector<std::int64_t> indices(const Stretch& stretch) {
  auto all_of_it = all(stretch.count);
  for (auto& index : all_of_it) index += stretch.begin;
  return all_of_it;
}

/// Position of `value` in an ascending list, or -1.
std::int64_t position(std::span<const std::int64_t> ascending, std::int64_t value) {
  const auto at = std::ranges::lower_bound(ascending, value);
  return at == ascending.end() || *at != value ? -1 : at - ascending.begin();
}

/// out[i, j] = matrix[rows[i], columns[j]] of a row-major matrix with `width` columns.
void gather(std::span<const std::byte> matrix, std::int64_t width, std::size_t bytes,
            std::span<const std::int64_t> rows, std::span<const std::int64_t> columns,
            std::span<std::byte> out) {
  std::size_t at = 0;
  for (const auto row : rows)
    for (const auto column : columns) {
      std::memcpy(out.data() + at, matrix.data() + static_cast<std::size_t>(row * width + column) * bytes,
                  bytes);
      at += bytes;
    }
}

/// Entries `first` of the first axis and `columns` of the last, with all between; rank 1 has one column.
Tensor cut(const Tensor& tensor, std::span<const std::int64_t> first, std::span<const std::int64_t> columns) {
  Shape shape = tensor.shape();
  const std::int64_t width = shape.size() < 2 ? 1 : shape.back();
  const std::int64_t rows_of_each = shape.size() < 3 ? 1 : shape[1];
  std::vector<std::int64_t> rows;
  for (const auto entry : first)
    for (std::int64_t r = 0; r < rows_of_each; ++r) rows.push_back(entry * rows_of_each + r);
  shape[0] = static_cast<std::int64_t>(first.size());
  if (shape.size() > 1) shape.back() = static_cast<std::int64_t>(columns.size());
  Tensor out(tensor.dtype(), std::move(shape));
  if (tensor.size() > 0)
    gather(tensor.bytes(), width, tensor.bytes().size() / static_cast<std::size_t>(tensor.size()), rows,
           columns, out.bytes());
  return out;
}

ExpertLoader cut_experts(const Problem& problem, const Part& part) {
  const auto& config = problem.config;
  const bool columns_stay = part.hidden == Stretch{0, config.hidden_size} &&
                            part.intermediate == Stretch{0, config.moe_intermediate_size};
  return [loader = problem.experts, config, part, columns_stay](Field field,
                                                                std::int64_t expert) -> ExpertMatrix {
    auto matrix = loader(field, part.experts[static_cast<std::size_t>(expert)]);
    if (columns_stay) return matrix;
    auto rows = indices(field == Field::gate_up_proj ? part.intermediate : part.hidden);
    const auto columns = indices(field == Field::gate_up_proj ? part.hidden : part.intermediate);
    if (field == Field::gate_up_proj)  // gate rows first, then as many up rows
      for (std::int64_t i = 0; i < part.intermediate.count; ++i)
        rows.push_back(config.moe_intermediate_size + part.intermediate.begin + i);
    auto values = std::make_shared<std::vector<Bf16>>(rows.size() * columns.size());
    gather(std::as_bytes(matrix.values),
           field == Field::gate_up_proj ? config.hidden_size : config.moe_intermediate_size, sizeof(Bf16),
           rows, columns, std::as_writable_bytes(std::span(*values)));
    return {*values, values};
  };
}

/// A weight's gradient of before.
Tensor cut_previous(const Tensor& tensor, Field field, const MoeConfig& config, const Part& part) {
  if (field == Field::d_gate) return cut(tensor, part.experts, indices(part.hidden));
  const bool gate_up = field == Field::d_gate_up_proj;
  auto rows = indices(gate_up ? part.intermediate : part.hidden);
  if (gate_up)  // gate rows first, then as many up rows
    for (std::int64_t i = 0; i < part.intermediate.count; ++i)
      rows.push_back(config.moe_intermediate_size + part.intermediate.begin + i);
  const auto columns = indices(gate_up ? part.hidden : part.intermediate);
  const std::int64_t rows_of_each = tensor.shape()[1];
  std::vector<std::int64_t> all_rows;
  for (const auto expert : part.experts)
    for (const auto r : rows) all_rows.push_back(expert * rows_of_each + r);
  Tensor out(tensor.dtype(), {std::ssize(part.experts), std::ssize(rows), std::ssize(columns)});
  gather(tensor.bytes(), tensor.shape()[2], row(tensor.dtype()).size, all_rows, columns, out.bytes());
  return out;
}

bool cuts_columns(const Part& part, const MoeConfig& config) {
  return part.hidden != Stretch{0, config.hidden_size} ||
         part.intermediate != Stretch{0, config.moe_intermediate_size};
}

/// Whether the field is a sum over what the part drops, so that no piece of it is the part's: the softmax's
/// gradient is one over all experts, and what is made of it is not the part's either.
bool sums_over_dropped(Field field, const Sizes& sizes, const Part& part) {
  const bool fewer_tokens = std::ssize(part.tokens) != sizes.tokens;
  const bool fewer_experts = std::ssize(part.experts) != sizes.config.num_experts;
  if (fewer_experts && find_step(field)->kind == StepKind::SoftmaxGrad) return true;
  return std::ranges::any_of(kProducts, [&](const ProductRow& product) {
    const bool over_tokens = product.summed == Dim::T || product.summed == Dim::S;
    const bool of_softmax = !given(product.left) && find_step(product.left)->kind == StepKind::SoftmaxGrad;
    return product.made == field && ((over_tokens && fewer_tokens) || (of_softmax && fewer_experts));
  });
}

/// Numbers of kept experts; what was no expert stays none; false when a dropped one is named.
bool renumber_experts(std::span<std::int32_t> values, std::int64_t experts, const Part& part) {
  for (auto& value : values) {
    if (value < 0) continue;
    const std::int64_t kept = value < experts
                                  ? position(part.experts, value)
                                  : value - experts + static_cast<std::int64_t>(part.experts.size());
    if (kept < 0) return false;
    value = static_cast<std::int32_t>(kept);
  }
  return true;
}

bool renumber_slots(std::span<std::int32_t> values, const Sizes& sizes, const Part& part) {
  const std::int64_t top_k = sizes.config.top_k;
  for (auto& value : values) {
    if (value < 0) continue;
    const bool is_slot = value < sizes.slots();
    const std::int64_t token = is_slot ? position(part.tokens, value / top_k) : -1;
    if (is_slot && token < 0) return false;
    const std::int64_t slots = static_cast<std::int64_t>(part.tokens.size()) * top_k;
    value =
        static_cast<std::int32_t>(is_slot ? token * top_k + value % top_k : value - sizes.slots() + slots);
  }
  return true;
}

}  // namespace

Part whole(const Sizes& sizes) {
  return {all(sizes.tokens),
          all(sizes.config.num_experts),
          {0, sizes.config.hidden_size},
          {0, sizes.config.moe_intermediate_size}};
}

Problem subproblem(const Problem& problem, const Part& part) {
  Problem out;
  out.name = problem.name;
  out.config = problem.config;
  out.config.num_experts = static_cast<std::int64_t>(part.experts.size());
  out.config.hidden_size = part.hidden.count;
  out.config.moe_intermediate_size = part.intermediate.count;
  out.sequence = static_cast<std::int64_t>(part.tokens.size());
  out.seed = problem.seed;
  const auto columns = indices(part.hidden);
  out.input = cut(problem.input, part.tokens, columns);
  out.gate = cut(problem.gate, part.experts, columns);
  if (problem.output_gradient.size() > 0)
    out.output_gradient = cut(problem.output_gradient, part.tokens, columns);
  out.experts = cut_experts(problem, part);
  for (const FieldRow& field : kFields)
    if (problem.previous.has(field.id))
      out.previous.set(field.id, cut_previous(problem.previous.at(field.id), field.id, problem.config, part));
  // Weights that were not cut may stay regenerated.
  if (part.experts.size() == static_cast<std::size_t>(problem.config.num_experts) &&
      !cuts_columns(part, problem.config))
    for (const Field field : {Field::gate, Field::gate_up_proj, Field::down_proj})
      out.generators[static_cast<std::size_t>(field)] = problem.generators[static_cast<std::size_t>(field)];
  return out;
}

std::vector<std::int64_t> rows_of_tokens(std::span<const std::int32_t> selected, std::int64_t top_k,
                                         std::span<const std::int64_t> tokens) {
  auto slots = all(static_cast<std::int64_t>(selected.size()));
  std::ranges::stable_sort(slots, {},
                           [&](std::int64_t slot) { return selected[static_cast<std::size_t>(slot)]; });
  std::vector<std::int64_t> rows;
  for (std::size_t row = 0; row < slots.size(); ++row)
    if (position(tokens, slots[row] / top_k) >= 0) rows.push_back(static_cast<std::int64_t>(row));
  return rows;
}

std::optional<FieldSet> subfields(const FieldSet& fields, const Sizes& sizes,
                                  std::span<const std::int32_t> selected, const Part& part) {
  if (cuts_columns(part, sizes.config)) return std::nullopt;
  const std::int64_t top_k = sizes.config.top_k;
  const auto rows = rows_of_tokens(selected, top_k, part.tokens);
  std::vector<std::int64_t> slots;
  for (const auto token : part.tokens)
    for (std::int64_t j = 0; j < top_k; ++j) {
      slots.push_back(token * top_k + j);
      if (position(part.experts, selected[static_cast<std::size_t>(slots.back())]) < 0) return std::nullopt;
    }
  const auto kept_of_first = [&](RowsAre kind) -> const std::vector<std::int64_t>& {
    switch (kind) {
      case RowsAre::Tokens: return part.tokens;
      case RowsAre::ExpertOrder: return rows;
      case RowsAre::Slots: return slots;
      case RowsAre::Experts:
      case RowsAre::ExpertMatrix: break;
    }
    return part.experts;
  };
  FieldSet out;
  for (const auto& what : kFields) {
    if (given(what.id) || !fields.has(what.id) || sums_over_dropped(what.id, sizes, part)) continue;
    const Tensor& tensor = fields.at(what.id);
    const bool wide = tensor.dtype() == DType::Float32 && may_be_float32(what.id);
    if (tensor.shape() != expected_shape(what.id, sizes) || (tensor.dtype() != what.dtype && !wide)) {
      out.set(what.id, tensor);
      continue;
    }
    const bool by_expert = rank_of(what.id) == 2 && what.shape[1] == Dim::E;
    Tensor piece =
        cut(tensor, kept_of_first(what.rows), by_expert ? part.experts : all(width_of(what.id, sizes)));
    if (what.id == Field::selected_experts &&
        !renumber_experts(piece.as<std::int32_t>(), sizes.config.num_experts, part))
      return std::nullopt;
    if (what.id == Field::gather_indices && !renumber_slots(piece.as<std::int32_t>(), sizes, part))
      return std::nullopt;
    if (what.id ==
        Field::token_counts_by_expert) {  // less the rows that left: a wrong count stays as wrong as it was
      const auto counts = piece.as<std::int32_t>();
      for (std::size_t slot = 0; slot < selected.size(); ++slot)
        if (position(part.tokens, static_cast<std::int64_t>(slot) / top_k) < 0)
          if (const auto expert = position(part.experts, selected[slot]); expert >= 0)
            --counts[static_cast<std::size_t>(expert)];
    }
    out.set(what.id, std::move(piece));
  }
  return out;
}

}  // namespace assay
