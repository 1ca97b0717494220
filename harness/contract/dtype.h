// Element types of fields and files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "harness/contract/bf16.h"

namespace assay {

enum class DType { BFloat16, Int32, Float64, Float32 };

struct DTypeRow {
  DType dtype;
  std::string_view name;  // as written in files
  std::size_t size;       // bytes
};

inline constexpr DTypeRow kDTypes[] = {
    {DType::BFloat16, "bfloat16", 2},
    {DType::Int32, "int32", 4},
    {DType::Float64, "float64", 8},
    {DType::Float32, "float32", 4},
};

constexpr const DTypeRow& row(DType dtype) { return kDTypes[static_cast<std::size_t>(dtype)]; }

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<Bf16> {
  static constexpr DType value = DType::BFloat16;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::Int32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::Float64;
};
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::Float32;
};

}  // namespace assay
