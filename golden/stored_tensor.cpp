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
using hdf5::StoredAs;

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
  const bool is_signed = dataset.stored == StoredAs::Signed;
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

std::string repair(DType wanted) {
  switch (wanted) {
    case DType::BFloat16:
      return "store the bfloat16 values themselves, as a 2-byte float or as their bits in uint16 "
             "(golden/python "
             "has a writer)";
    case DType::Int32: return "store integers";
    case DType::Float32: return "store float32";
    case DType::Float64: break;
  }
  return "store float64";
}

[[noreturn]] void refuse(const Dataset& dataset, std::optional<DType> wanted,
                         const std::string& detail = "") {
  if (!wanted) throw StorageError(fmt::format("{}, of which no tensor is made", dataset.stored_name()));
  throw StorageError(fmt::format("expected {}, found {}{}; {}", row(*wanted).name, dataset.stored_name(),
                                 detail, repair(*wanted)));
}

/// bfloat16 out of float32. Throws StorageError at the first element that is none.
void narrow_floats(const Dataset& dataset, std::span<const std::byte> raw, std::span<Bf16> out,
                   std::vector<std::string>& remarks) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto bits = element<std::uint32_t>(raw, i);
    if ((bits & 0xffffu) != 0)
      refuse(dataset, DType::BFloat16,
             fmt::format(" whose element {} is {:#010x}, which is not a bfloat16 value", i, bits));
    out[i] = {static_cast<std::uint16_t>(bits >> 16)};
  }
  remark_once(remarks, "bfloat16 is stored as float32 with zero low halves");
}

void convert(const Dataset& dataset, std::span<const std::byte> raw, Tensor& tensor, WideIntegers wide,
             std::vector<std::string>& remarks) {
  if (tensor.dtype() == DType::Int32) return narrow_integers(dataset, raw, tensor, wide, remarks);
  if (tensor.dtype() == DType::BFloat16) return narrow_floats(dataset, raw, tensor.as<Bf16>(), remarks);
  if (tensor.dtype() == DType::Float32) {  // in the other byte order, which is undone
    std::memcpy(tensor.bytes().data(), raw.data(), raw.size());
    return;
  }
  const auto out = tensor.as<double>();
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = dataset.stored == StoredAs::Float32 ? double{element<float>(raw, i)}
                                                 : half_to_double(element<std::uint16_t>(raw, i));
  remark_once(remarks,
              fmt::format("{} is stored as {} and read as float64", dataset.path, dataset.stored_name()));
}

/// "int64" of "big-endian int64".
std::string_view value_type(const Dataset& dataset) {
  std::string_view name = dataset.stored_name();
  constexpr std::string_view kPrefix = "big-endian ";
  if (name.starts_with(kPrefix)) name.remove_prefix(kPrefix.size());
  return name;
}

/// A writer may have hashed the elements as this machine has them, or as they lie in the file; or the
/// bfloat16 or int32 bytes rather than the wider ones it stored. `raw` is the first of these, which is
/// returned unless another one is what the file states.
std::string matching_hash(const Dataset& dataset, std::span<const std::byte> raw, const Tensor& tensor) {
  auto plain = sha256_hex(raw);
  if (!dataset.sha256 || *dataset.sha256 == plain) return plain;
  auto hash = sha256_hex(tensor.bytes());
  if (*dataset.sha256 == hash || !dataset.object->big_endian) return hash;
  std::vector<std::byte> turned(raw.begin(), raw.end());
  for (std::size_t at = 0; at < turned.size(); at += dataset.element_size)
    std::ranges::reverse(std::span(turned).subspan(at, dataset.element_size));
  return sha256_hex(turned);
}

}  // namespace

void require_origin(const std::string& origin, const std::string& path) {
  constexpr std::string_view origins[] = {"", "captured", "derived", "computed", "regenerated"};
  if (std::ranges::find(origins, origin) == std::end(origins))
    throw InputError(
        fmt::format("{}: origin '{}' is none of captured, derived, computed, regenerated", path, origin));
}

DType dtype_of(const Dataset& dataset, std::optional<DType> wanted) {
  const bool as_bf16 = wanted == DType::BFloat16 || dataset.dtype == "bfloat16";
  switch (dataset.stored) {
    case StoredAs::Bf16: return DType::BFloat16;
    case StoredAs::Float64: return DType::Float64;
    case StoredAs::Float32:
      if (wanted == DType::Float32 && dataset.dtype != "bfloat16") return DType::Float32;
      if (as_bf16) return DType::BFloat16;
      break;
    case StoredAs::Unsigned:
      if (as_bf16 && dataset.element_size == 2) return DType::BFloat16;
      [[fallthrough]];
    case StoredAs::Signed:
      // int32 is a dtype of its own: a wrong one, but no other storage.
      if (!wanted || wanted == DType::Int32 || value_type(dataset) == "int32") return DType::Int32;
      refuse(dataset, wanted);
    case StoredAs::Float16: break;
    case StoredAs::Other: refuse(dataset, wanted);
  }
  if (wanted && wanted != DType::Float64) refuse(dataset, wanted);
  return DType::Float64;
}

StoredTensor read_tensor(const Dataset& dataset, std::optional<DType> wanted, WideIntegers wide,
                         std::vector<std::string>& remarks) {
  const auto dtype = dtype_of(dataset, wanted);
  const auto dtype_name = row(dtype).name;
  if (dataset.dtype && *dataset.dtype != dtype_name && *dataset.dtype != value_type(dataset))
    throw InputError(fmt::format("{}: its dtype attribute says '{}', its elements are {}", dataset.path,
                                 *dataset.dtype, dataset.stored_name()));
  StoredTensor result{Tensor(dtype, dataset.shape), dataset.path, dataset.origin.value_or(""), "",
                      dataset.sha256.has_value()};
  Tensor& tensor = result.tensor;
  require_origin(result.origin, dataset.path);

  const bool as_is = dataset.stored_name() == dtype_name ||
                     (tensor.dtype() == DType::BFloat16 && dataset.stored == StoredAs::Unsigned);
  if (as_is) {
    read_raw(dataset, tensor.bytes());
    result.sha256 = matching_hash(dataset, tensor.bytes(), tensor);
    if (dataset.stored == StoredAs::Unsigned) remark_once(remarks, "bfloat16 is stored as uint16");
  } else {
    std::vector<std::byte> raw(static_cast<std::size_t>(tensor.size()) * dataset.element_size);
    read_raw(dataset, raw);
    convert(dataset, raw, tensor, wide, remarks);
    result.sha256 = matching_hash(dataset, raw, tensor);
  }
  if (dataset.sha256 && *dataset.sha256 != result.sha256)
    throw InputError(
        fmt::format("{}: the SHA-256 of its data is {}, the file says {}: one of them was changed after the "
                    "file was written",
                    dataset.path, result.sha256, *dataset.sha256));
  return result;
}

std::int64_t non_finite_values(const hdf5::Dataset& dataset) {
  std::vector<std::string> remarks;
  try {
    const auto tensor = read_tensor(dataset, std::nullopt, WideIntegers::Saturate, remarks).tensor;
    const auto strange = [](double x) { return !std::isfinite(x); };
    if (tensor.dtype() == DType::Float64) return std::ranges::count_if(tensor.as<double>(), strange);
    if (tensor.dtype() == DType::BFloat16)
      return std::ranges::count_if(tensor.as<Bf16>(), [&](Bf16 x) { return strange(to_float(x)); });
  } catch (const StorageError&) {
    // Texts, compounds: nothing that could be NaN.
  }
  return 0;
}

}  // namespace assay
