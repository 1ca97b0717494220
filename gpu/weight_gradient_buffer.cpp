#include "gpu/weight_gradient_buffer.h"

#include "harness/contract/error.h"
#include "harness/contract/layer.h"

namespace assay::gpu {

WeightGradientOptions weight_gradient_options(Field field, std::string_view contract,
                                              const FieldSet& previous) {
  const PrecisionContract& rounds = find_contract(contract);
  return {.fp32 = dtype_of(field, rounds) == DType::Float32,
          .added = previous.has(field),
          .products_rounded = rounds.weight_products == Store::Bf16};
}

void WeightGradientBuffer::upload_previous(Field field, const FieldSet& previous, const Sizes& sizes) {
  if (!options_.added || size() == 0) return;
  const Tensor& before = previous.at(field);
  const DType dtype = options_.fp32 ? DType::Float32 : DType::BFloat16;
  const auto in_words = [](DType of, const Shape& shape) {
    return std::string(row(of).name) + " " + to_string(shape);
  };
  if (before.dtype() != dtype || before.shape() != expected_shape(field, sizes))
    throw InputError("expected the " + std::string(name(field)) + " of before to be " +
                     in_words(dtype, expected_shape(field, sizes)) + ", found " +
                     in_words(before.dtype(), before.shape()));
  bytes_.upload(before.bytes().data(), 0, bytes_.size());
}

}  // namespace assay::gpu
