#include "harness/contract/tensor.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/error.h"

namespace assay {

std::int64_t element_count(const Shape& shape) {
  std::int64_t count = 1;
  for (const auto extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(count, extent, &count))
      throw InputError(fmt::format("shape {} has a negative or too large extent", to_string(shape)));
  }
  return count;
}

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

Tensor::Tensor(DType dtype, Shape shape)
    : dtype_(dtype),
      shape_(std::move(shape)),
      count_(element_count(shape_)),
      bytes_(static_cast<std::size_t>(count_) * row(dtype).size) {
  constexpr std::size_t kPiece = std::size_t{1}
                                 << 22;  // zeroed side by side: the first touch of memory is what costs
#pragma omp parallel for schedule(static) if (bytes_.size() > kPiece)
  for (std::size_t at = 0; at < bytes_.size(); at += kPiece)
    std::memset(bytes_.data() + at, 0, std::min(kPiece, bytes_.size() - at));
}

void Tensor::reshape(Shape shape) {
  if (element_count(shape) != count_)
    throw InputError(fmt::format("cannot view shape {} as {}", to_string(shape_), to_string(shape)));
  shape_ = std::move(shape);
}

void Tensor::require(DType dtype) const {
  if (dtype != dtype_)
    throw InputError(fmt::format("expected a tensor of {}, found {}", row(dtype).name, row(dtype_).name));
}

}  // namespace assay
