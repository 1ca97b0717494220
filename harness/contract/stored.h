// Elements of a rounded field as they are stored: bf16, or float32 where a contract keeps them so (layer.h,
// dtype_of). Both are read as floats; what rounds to them, their neighbours and their bits depend on the
// type.
#pragma once

#include <concepts>
#include <span>

#include "harness/contract/tensor.h"

namespace assay {

/// x rounded once to bf16 or float32, to nearest even.
inline float round_to(DType dtype, double x) {
  return dtype == DType::Float32 ? static_cast<float>(x) : to_float(round_to_bf16(x));
}

/// Fraction bits of bf16 or float32.
constexpr int fraction_bits(DType dtype) { return dtype == DType::Float32 ? 23 : 7; }

/// Distance between neighbours at |x|.
inline double ulp_at(DType dtype, double x) {
  if (dtype != DType::Float32) return bf16_ulp(x);
  const double magnitude = std::fabs(x);
  if (!(magnitude > 0x1p-126)) return 0x1p-149;
  return std::ldexp(1.0, std::ilogb(magnitude) - 23);
}

/// One element.
struct Stored {
  float value = 0.0f;
  DType dtype = DType::BFloat16;

  Stored() = default;
  Stored(Bf16 x) : value(to_float(x)) {}  // NOLINT: every bf16 is one
  Stored(float x, DType as) : value(x), dtype(as) {}

  std::uint32_t bits() const {
    const auto all = std::bit_cast<std::uint32_t>(value);
    return dtype == DType::Float32 ? all : all >> 16;
  }
  bool finite() const { return std::isfinite(value); }
  /// Monotone integer of the value: neighbours differ by one; +0 and -0 are both 0.
  std::int64_t ordinal() const {
    const std::uint32_t all = bits();
    const std::uint32_t sign = dtype == DType::Float32 ? 0x80000000u : 0x8000u;
    const auto magnitude = static_cast<std::int64_t>(all & (sign - 1));
    return (all & sign) != 0 ? -magnitude : magnitude;
  }
};

/// The same bits, of one type.
inline bool operator==(Stored a, Stored b) {
  return std::bit_cast<std::uint32_t>(a.value) == std::bit_cast<std::uint32_t>(b.value);
}

inline Stored stored_as(DType dtype, double x) { return {round_to(dtype, x), dtype}; }

/// The element of those bits, 16 of them or 32.
inline Stored with_bits(DType dtype, std::uint32_t bits) {
  return {std::bit_cast<float>(dtype == DType::Float32 ? bits : bits << 16), dtype};
}

/// Elements somebody else owns. What is in memory may be float32 while the elements are bf16: a file may hold
/// those with zero low halves.
class StoredSpan {
 public:
  StoredSpan() = default;
  template <std::convertible_to<std::span<const Bf16>> Range>
  StoredSpan(const Range& values) {  // NOLINT: as a span of const elements is
    const std::span<const Bf16> all = values;
    narrow_ = all.data();
    size_ = all.size();
  }
  StoredSpan(std::span<const float> values, DType dtype)
      : wide_(values.data()), size_(values.size()), dtype_(dtype) {}
  /// All elements of a bf16 or float32 tensor, taken for elements of `dtype`. Throws InputError for others.
  StoredSpan(const Tensor& tensor, DType dtype)
      : StoredSpan(tensor.dtype() == DType::Float32 ? StoredSpan(tensor.as<float>(), dtype)
                                                    : StoredSpan(tensor.as<Bf16>())) {}

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  DType dtype() const { return dtype_; }
  float value(std::size_t i) const { return narrow_ != nullptr ? to_float(narrow_[i]) : wide_[i]; }
  Stored operator[](std::size_t i) const { return {value(i), dtype_}; }
  StoredSpan subspan(std::size_t first, std::size_t count) const {
    StoredSpan part = *this;
    part.size_ = count;
    if (narrow_ != nullptr) part.narrow_ += first;
    if (wide_ != nullptr) part.wide_ += first;
    return part;
  }
  StoredSpan subspan(std::size_t first) const { return subspan(first, size_ - first); }
  /// The elements where bf16 is in memory, else null.
  const Bf16* bf16() const { return narrow_; }
  const float* float32() const { return wide_; }

 private:
  const Bf16* narrow_ = nullptr;
  const float* wide_ = nullptr;
  std::size_t size_ = 0;
  DType dtype_ = DType::BFloat16;
};

/// Whether a float32 is the image of a bf16.
constexpr bool is_bf16(float x) { return (std::bit_cast<std::uint32_t>(x) & 0xffffu) == 0; }

}  // namespace assay
