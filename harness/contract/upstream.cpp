#include "harness/contract/upstream.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/layer.h"
#include "harness/contract/stored.h"

namespace assay {
namespace {

/// One past the largest legal entry of an index field; nothing for fields that hold no indices.
std::optional<std::int64_t> index_limit(Field field, const Sizes& sizes) {
  if (field == Field::selected_experts) return sizes.config.num_experts;
  if (field == Field::gather_indices) return sizes.slots();
  return std::nullopt;
}

/// What a wrong shape has in common with the right one, to be appended; empty where it is nothing.
std::string kinship(const Shape& expected, const Shape& found) {
  if (element_count(expected) == 0 || element_count(expected) != element_count(found)) return "";
  Shape turned = expected;
  if (turned.size() > 1) std::swap(turned[turned.size() - 2], turned.back());
  if (found != turned) return ": as many elements, in another shape";
  return turned.size() == 2 ? ": transposed" : ": its last two axes are exchanged";
}

/// The contracts that keep a field in float32.
std::string contracts_with_float32(Field field) {
  std::vector<std::string_view> names;
  for (const PrecisionContract& contract : kContracts)
    if (dtype_of(field, contract) == DType::Float32) names.push_back(contract.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

/// What is wrong with float32 elements where bf16 ones are due: nothing if they are bf16 values.
std::optional<Unusable> more_than_bf16(Field field, std::span<const float> values) {
  const auto bad = std::ranges::find_if_not(values, is_bf16);
  if (bad == values.end()) return std::nullopt;
  return Unusable{
      Verdict::WrongDtype,
      fmt::format(
          "expected bfloat16, found float32 whose element {} is {:#010x}, which is not a bfloat16 value; {}",
          bad - values.begin(), std::bit_cast<std::uint32_t>(*bad),
          may_be_float32(field) ? fmt::format("a contract that keeps {} in float32 ({}) takes it as it is",
                                              name(field), contracts_with_float32(field))
                                : "round it once, to nearest even, where the contract stores it"),
      0};
}

}  // namespace

std::optional<Unusable> unusable(Field field, const Tensor& tensor, const Sizes& sizes,
                                 std::optional<DType> asked) {
  const Shape expected = expected_shape(field, sizes);
  if (tensor.shape() != expected)
    return Unusable{Verdict::WrongShape,
                    fmt::format("expected shape {}, found {}{}", to_string(expected),
                                to_string(tensor.shape()), kinship(expected, tensor.shape()))};
  const bool float32 = tensor.dtype() == DType::Float32;
  const DType dtype = asked.value_or(float32 && may_be_float32(field) ? DType::Float32 : row(field).dtype);
  if (float32 && dtype == DType::BFloat16) return more_than_bf16(field, tensor.as<float>());
  if (tensor.dtype() != dtype)
    return Unusable{Verdict::WrongDtype,
                    fmt::format("expected {}, found {}{}", row(dtype).name, row(tensor.dtype()).name,
                                dtype == DType::BFloat16 ? "; store bfloat16 values, as 2-byte floats or as "
                                                           "their bits in uint16"
                                                         : "")};
  const auto limit = index_limit(field, sizes);
  if (!limit) return std::nullopt;
  const auto values = tensor.as<std::int32_t>();
  const auto out_of_range = [&](std::int32_t v) { return v < 0 || v >= *limit; };
  const auto bad = std::ranges::find_if(values, out_of_range);
  if (bad == values.end()) return std::nullopt;
  const std::int64_t count = std::ranges::count_if(values, out_of_range);
  const std::int64_t at = bad - values.begin();
  const std::int64_t k = sizes.config.top_k;
  return Unusable{
      Verdict::Failed,
      fmt::format("{} of {} entries {} out of range: {} is {}, expected 0 to {}", count, values.size(),
                  count == 1 ? "is" : "are",
                  field == Field::selected_experts ? fmt::format("token {}, slot {}", at / k, at % k)
                                                   : fmt::format("row {}", at),
                  *bad, *limit - 1),
      count};
}

bool computable(Field field, const Problem& problem) {
  // Of no tokens it has a shape, and no elements: the weights' gradients are zeros then.
  const bool has_gradient = problem.output_gradient.shape().size() == 2;
  const bool backward = descends_from(field, Field::d_hidden_states);
  return find_step(field) != nullptr && (!backward || has_gradient);
}

Upstream usable_upstream(const Problem& problem, const FieldSet& fields) {
  Upstream upstream;
  upstream.fields = &fields;
  for (const auto& what : kFields)
    upstream.usable[static_cast<std::size_t>(what.id)] =
        computable(what.id, problem) && fields.has(what.id) &&
        !unusable(what.id, fields.at(what.id), problem.sizes());
  return upstream;
}

}  // namespace assay
