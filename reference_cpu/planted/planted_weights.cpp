#include <algorithm>

#include "harness/contract/layer.h"
#include "reference_cpu/planted/planted.h"
#include "reference_cpu/planted/planted_gradients.h"
#include "reference_cpu/previous_gradients.h"
#include "reference_cpu/product/weight_gradient.h"

namespace assay {
namespace {

/// Rows of one expert's matrix in the whole field.
RowRange rows_of_matrix(ProductId id, const Layer& layer, std::int64_t expert) {
  const std::int64_t height = width_of(row(id).left, layer.problem->sizes());
  return {expert * height, (expert + 1) * height};
}

/// The left operand [rows, width] with every element changed: change(row among its expert's, of how many,
/// value).
template <class Change>
Values<Predicted> changed_rows(ProductId id, const Layer& layer, const Values<Predicted>& left,
                               Change change) {
  const std::int64_t width = width_of(row(id).left, layer.problem->sizes());
  const std::vector<std::int64_t> one_group = {0, layer.tokens()};
  const auto& offsets = row(id).summed == Dim::T ? one_group : layer.routing.offsets;
  Values<Predicted> out = left;
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g)
    for (std::int64_t r = offsets[g]; r < offsets[g + 1]; ++r)
      for (std::int64_t c = 0; c < width; ++c) {
        float& x = out[static_cast<std::size_t>(r * width + c)].value;
        x = change(r - offsets[g], offsets[g + 1] - offsets[g], x);
      }
  return out;
}

/// The left operand in the order of its sum's rows: the field, or the rows that stand in for it.
Values<Predicted> left_operand(ProductId id, const Layer& layer, const FieldReader& read) {
  const ProductRow& product = row(id);
  if (id != ProductId::down_dw || !weight_after_product(*layer.contract)) return read(product.left);
  const auto width = static_cast<std::size_t>(width_of(product.left, layer.problem->sizes()));
  const auto rows = given_left(id, layer).as<Bf16>();
  Values<Predicted> out(layer.routing.gather.size() * width);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto token = static_cast<std::size_t>(layer.routing.gather[i / width] / layer.config().top_k);
    out[i] = Predicted::exact(to_float(rows[token * width + i % width]));
  }
  return out;
}

void reverse_rows(Values<Predicted>& rows, std::int64_t width, std::int64_t first, std::int64_t last) {
  if (rows.empty()) return;
  for (; first < last - 1; ++first, --last)
    std::swap_ranges(rows.begin() + first * width, rows.begin() + (first + 1) * width,
                     rows.begin() + (last - 1) * width);
}

}  // namespace

Values<Predicted> planted_weight_gradient(ProductId id, const Fault& fault, const Layer& right,
                                          const FieldReader& read) {
  Layer layer = right;
  const ProductRow& product = row(id);
  const Sizes sizes = layer.problem->sizes();
  const std::int64_t matrices = product.summed == Dim::T ? 1 : sizes.config.num_experts;
  const auto slots = static_cast<std::int64_t>(layer.routing.gather.size());
  Values<Predicted> left = left_operand(id, layer, read);
  const Values<Predicted>* second = given(product.right) ? nullptr : &read(product.right);
  const std::int64_t width = width_of(product.left, sizes);
  const std::int64_t second_width = width_of(product.right, sizes);
  Values<Predicted> own_second = second == nullptr ? Values<Predicted>() : *second;
  const bool weighted = id == ProductId::down_dw && weight_after_product(*layer.contract);
  switch (fault.kind) {
    case FaultKind::NoWeights:
    case FaultKind::WeightTwice:
      if (!weighted) break;
      if (fault.kind == FaultKind::NoWeights)
        own_second = recomputed_activation<Predicted>(layer, read(Field::first_gemm));
      else
        own_second = times_weights<Predicted>(layer, own_second, read(Field::topk_weights));
      for (auto& x : own_second) x = stored(x, Store::Bf16);
      second = &own_second;
      break;
    case FaultKind::DropLastK:
      left = changed_rows(id, layer, left, [&](std::int64_t i, std::int64_t of, float x) {
        return i + fault.amount >= of ? 0.0f : x;
      });
      break;
    case FaultKind::ScaleKBlock:
      left = changed_rows(id, layer, left, [&](std::int64_t i, std::int64_t, float x) {
        return i >= fault.first && i < fault.first + fault.amount ? x * static_cast<float>(1.0 + fault.scale)
                                                                  : x;
      });
      break;
    case FaultKind::RowsOfNeighbour:
      for (auto& offset : layer.routing.offsets) offset = std::min(offset + 1, slots);
      break;
    case FaultKind::RowsDescending:
      for (std::size_t e = 0; e + 1 < layer.routing.offsets.size(); ++e) {
        const auto first = layer.routing.offsets[e];
        const auto last = layer.routing.offsets[e + 1];
        reverse_rows(left, width, first, last);
        reverse_rows(own_second, second_width, first, last);
        std::reverse(layer.routing.gather.begin() + first, layer.routing.gather.begin() + last);
      }
      second = second == nullptr ? nullptr : &own_second;
      break;
    case FaultKind::SlotForToken:
      for (auto& slot : layer.routing.gather)
        slot = static_cast<std::int32_t>(slot % sizes.tokens * sizes.config.top_k);
      break;
    case FaultKind::SwapGateUp:
      for (std::size_t i = 0; i < left.size(); ++i) {
        const auto c = static_cast<std::int64_t>(i) % width;
        left[i] = read(product.left)[i - static_cast<std::size_t>(c) +
                                     static_cast<std::size_t>((c + width / 2) % width)];
      }
      break;
    default: break;
  }
  Values<Predicted> out;
  for (std::int64_t e = 0; e < matrices; ++e) {
    Layer of_expert = layer;
    if (fault.kind == FaultKind::ReadBeyondK)
      of_expert.routing.offsets[static_cast<std::size_t>(e) + 1] =
          std::min(slots, layer.routing.offsets[static_cast<std::size_t>(e) + 1] + fault.amount);
    Values<Predicted> matrix;
    if (fault.kind == FaultKind::AccumulateBf16) {
      auto prepared = prepare_weight_gradient<Predicted>(id, of_expert, e, {0, width}, &left, second);
      prepared.product.fault = fault;
      matrix = grouped_product(prepared.product);
    } else {
      matrix = weight_gradient<Predicted>(id, of_expert, rows_of_matrix(id, layer, e), &left, second);
    }
    out.insert(out.end(), matrix.begin(), matrix.end());
  }
  layer.fault = fault;
  add_previous<Predicted>(product.made, layer, 0, out);
  return out;
}

}  // namespace assay
