#include "golden/stored_tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include <fmt/format.h>

#include "golden/sha256.h"
#include "harness/contract/error.h"

namespace assay {
namespace {

using hdf5::Dataset;
using hdf5::Stored;

void remark_once(std::vector<std::string>& remarks, std::string remark) {
  if (std::ranges::find(remarks, remark) == remarks.end()) remarks.push_back(std::move(remark));
}

template <class T>
T element(std::span<const std::byte> bytes, std::size_t i) {
  T value;
  std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}

double half_to_double(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  double value = exponent == 31  ? (fraction != 0 ? std::numeric_limits<double>::quiet_NaN() : HUGE_VAL)
                 : exponent == 0 ? std::ldexp(fraction, -24)
                                 : std::ldexp(1024 + fraction, exponent - 25);
  return (bits & 0x8000) != 0 ? -value : value;
}

template <class T>
void narrow(std::span<const std::byte> raw, Tensor& tensor, const std::string& path, WideIntegers wide,
            std::vector<std::string>& remarks) {
  const auto out = tensor.as<std::int32_t>();
  for (std::size_t i = 0; i < out.size(); ++i) {
    const T value = element<T>(raw, i);
    if (std::in_range<std::int32_t>(value)) {
      out[i] = static_cast<std::int32_t>(value);
      continue;
    }
    const std::string outside = fmt::format("{}: element {} is {}, which int32 cannot hold", path, i, value);
    if (wide == WideIntegers::Refuse) throw InputError(outside);
    remark_once(remarks, outside);
    out[i] = std::cmp_less(value, 0) ? std::numeric_limits<std::int32_t>::min()
                                     : std::numeric_limits<std::int32_t>::max();
  }
}

void narrow_integers(const Dataset& dataset, std::span<const std::byte> raw, Tensor& tensor,
                     WideIntegers wide, std::vector<std::string>& remarks) {
  const bool is_signed = dataset.stored == Stored::Signed;
  switch (dataset.element_size) {
    case 1:
      return is_signed ? narrow<std::int8_t>(raw, tensor, dataset.path, wide, remarks)
                       : narrow<std::uint8_t>(raw, tensor, dataset.path, wide, remarks);
    case 2:
      return is_signed ? narrow<std::int16_t>(raw, tensor, dataset.path, wide, remarks)
                       : narrow<std::uint16_t>(raw, tensor, dataset.path, wide, remarks);
    case 4:
      return is_signed ? narrow<std::int32_t>(raw, tensor, dataset.path, wide, remarks)
                       : narrow<std::uint32_t>(raw, tensor, dataset.path, wide, remarks);
    case 8:
      return is_signed ? narrow<std::int64_t>(raw, tensor, dataset.path, wide, remarks)
                       : narrow<std::uint64_t>(raw, tensor, dataset.path, wide, remarks);
    default:
      throw InputError(
          fmt::format("{}: integers of {} bytes are not read", dataset.path, dataset.element_size));
  }
}

/// The tensor's dtype: what the file says where it says so, else what its elements are.
DType target_dtype(const Dataset& dataset) {
  const bool says_bf16 = dataset.dtype == "bfloat16";
  if (dataset.stored == Stored::Other)
    throw InputError(
        fmt::format("{} holds {}, of which no tensor is made", dataset.path, dataset.stored_name()));
  switch (dataset.stored) {
    case Stored::Bf16: return DType::BFloat16;
    case Stored::Float32: return says_bf16 ? DType::BFloat16 : DType::Float64;
    case Stored::Unsigned: return says_bf16 && dataset.element_size == 2 ? DType::BFloat16 : DType::Int32;
    case Stored::Signed: return DType::Int32;
    default: return DType::Float64;
  }
}

void convert(const Dataset& dataset, std::span<const std::byte> raw, Tensor& tensor, WideIntegers wide,
             std::vector<std::string>& remarks) {
  const auto count = static_cast<std::size_t>(tensor.size());
  if (tensor.dtype() == DType::Int32) {
    narrow_integers(dataset, raw, tensor, wide, remarks);
  } else if (tensor.dtype() == DType::BFloat16) {
    const auto out = tensor.as<Bf16>();
    for (std::size_t i = 0; i < count; ++i) {
      const auto bits = element<std::uint32_t>(raw, i);
      if ((bits & 0xffffu) != 0)
        throw InputError(fmt::format(
            "{}: element {} is {:#010x}, a float32 that is not a bfloat16 value as its dtype says",
            dataset.path, i, bits));
      out[i] = {static_cast<std::uint16_t>(bits >> 16)};
    }
    remark_once(remarks, "bfloat16 is stored as float32 with zero low halves");
  } else {
    const auto out = tensor.as<double>();
    for (std::size_t i = 0; i < count; ++i)
      out[i] = dataset.stored == Stored::Float32 ? double{element<float>(raw, i)}
                                                 : half_to_double(element<std::uint16_t>(raw, i));
    remark_once(remarks,
                fmt::format("{} is stored as {} and read as float64", dataset.path, dataset.stored_name()));
  }
}

}  // namespace

void require_origin(const std::string& origin, const std::string& path) {
  constexpr std::string_view origins[] = {"", "captured", "derived", "computed", "regenerated"};
  if (std::ranges::find(origins, origin) == std::end(origins))
    throw InputError(
        fmt::format("{}: origin '{}' is none of captured, derived, computed, regenerated", path, origin));
}

StoredTensor read_tensor(Dataset dataset, WideIntegers wide, std::vector<std::string>& remarks) {
  StoredTensor result{Tensor(target_dtype(dataset), dataset.shape), dataset.path, dataset.origin.value_or(""),
                      "", dataset.sha256.has_value()};
  Tensor& tensor = result.tensor;
  const auto dtype_name = row(tensor.dtype()).name;
  if (dataset.dtype && *dataset.dtype != dtype_name && *dataset.dtype != dataset.stored_name())
    throw InputError(fmt::format("{}: its dtype attribute says '{}', its elements are {}", dataset.path,
                                 *dataset.dtype, dataset.stored_name()));
  require_origin(result.origin, dataset.path);

  const bool as_is = dataset.stored_name() == dtype_name ||
                     (tensor.dtype() == DType::BFloat16 && dataset.stored == Stored::Unsigned);
  if (as_is) {
    read_raw(dataset, tensor.bytes());
    result.sha256 = sha256_hex(tensor.bytes());
    if (dataset.stored == Stored::Unsigned) remark_once(remarks, "bfloat16 is stored as uint16");
  } else {
    std::vector<std::byte> raw(static_cast<std::size_t>(tensor.size()) * dataset.element_size);
    read_raw(dataset, raw);
    result.sha256 = sha256_hex(raw);
    convert(dataset, raw, tensor, wide, remarks);
    // A writer may have hashed the bfloat16 or int32 bytes rather than the wider ones it stored.
    if (dataset.sha256 && *dataset.sha256 != result.sha256) result.sha256 = sha256_hex(tensor.bytes());
  }
  if (dataset.sha256 && *dataset.sha256 != result.sha256)
    throw InputError(
        fmt::format("{}: the SHA-256 of its data is {}, the file says {}: one of them was changed after the "
                    "file was written",
                    dataset.path, result.sha256, *dataset.sha256));
  return result;
}

}  // namespace assay
