// A dense row-major tensor that owns its bytes, and a typed view of one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "harness/contract/dtype.h"
#include "harness/contract/large_vector.h"

namespace assay {

using Shape = std::vector<std::int64_t>;

/// Number of elements. Throws InputError on a negative size or when the product leaves 63 bits.
std::int64_t element_count(const Shape& shape);

/// "[16, 2048]"
std::string to_string(const Shape& shape);

/// Owns `element_count(shape)` elements of `dtype`, row-major, zero-initialised.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, Shape shape);

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  std::int64_t size() const { return count_; }
  std::span<std::byte> bytes() { return bytes_; }
  std::span<const std::byte> bytes() const { return bytes_; }

  /// Elements as T. Throws InputError when T is not the tensor's dtype.
  template <class T>
  std::span<T> as() {
    require(DTypeOf<T>::value);
    return {reinterpret_cast<T*>(bytes_.data()), static_cast<std::size_t>(count_)};
  }
  template <class T>
  std::span<const T> as() const {
    require(DTypeOf<T>::value);
    return {reinterpret_cast<const T*>(bytes_.data()), static_cast<std::size_t>(count_)};
  }

  /// The same elements under another shape of equal size.
  void reshape(Shape shape);

 private:
  void require(DType dtype) const;

  DType dtype_ = DType::BFloat16;
  Shape shape_ = {0};
  std::int64_t count_ = 0;
  LargeVector<std::byte> bytes_;
};

/// A row-major matrix somebody else owns.
template <class T>
struct MatrixView {
  std::span<const T> values;  // [rows, cols]
  std::int64_t rows = 0;
  std::int64_t cols = 0;

  std::span<const T> row(std::int64_t r) const {
    return values.subspan(static_cast<std::size_t>(r * cols), static_cast<std::size_t>(cols));
  }
};

}  // namespace assay
