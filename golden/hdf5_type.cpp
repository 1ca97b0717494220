#include "golden/hdf5_type.h"

#include <fmt/format.h>

namespace assay::hdf5 {
namespace {

struct FloatRow {
  StoredAs stored;
  const char* name;
  std::size_t size;
  std::size_t sign;  // bit positions from the lowest; the fraction is at 0
  std::size_t exponent;
  std::size_t exponent_bits;
  std::size_t fraction_bits;
  std::size_t bias;
};
constexpr FloatRow kFloats[] = {
    {StoredAs::Bf16, "bfloat16", 2, 15, 7, 8, 7, 127},
    {StoredAs::Float16, "float16", 2, 15, 10, 5, 10, 15},
    {StoredAs::Float32, "float32", 4, 31, 23, 8, 23, 127},
    {StoredAs::Float64, "float64", 8, 63, 52, 11, 52, 1023},
};

bool matches(hid_t type, const FloatRow& row) {
  std::size_t sign = 0;
  std::size_t exponent = 0;
  std::size_t exponent_bits = 0;
  std::size_t fraction = 0;
  std::size_t fraction_bits = 0;
  if (H5Tget_fields(type, &sign, &exponent, &exponent_bits, &fraction, &fraction_bits) < 0) return false;
  return H5Tget_size(type) == row.size && H5Tget_offset(type) == 0 &&
         H5Tget_precision(type) == 8 * row.size && sign == row.sign && exponent == row.exponent &&
         exponent_bits == row.exponent_bits && fraction == 0 && fraction_bits == row.fraction_bits &&
         H5Tget_ebias(type) == row.bias && H5Tget_norm(type) == H5T_NORM_IMPLIED;
}

TypeDescription describe_integer(hid_t type) {
  const auto size = H5Tget_size(type);
  const auto bits = H5Tget_precision(type);
  const auto offset = H5Tget_offset(type);
  const bool with_sign = H5Tget_sign(type) != H5T_SGN_NONE;
  const bool whole = offset == 0 && bits == 8 * size && (size == 1 || size == 2 || size == 4 || size == 8);
  const auto order = H5Tget_order(type);
  if (!whole || (size > 1 && order != H5T_ORDER_LE && order != H5T_ORDER_BE))
    return {StoredAs::Other, false, fmt::format("{}-bit integers at bit {} of {} bytes", bits, offset, size)};
  const bool big = size > 1 && order == H5T_ORDER_BE;
  return {with_sign ? StoredAs::Signed : StoredAs::Unsigned, big,
          fmt::format("{}{}int{}", big ? "big-endian " : "", with_sign ? "" : "u", bits)};
}

TypeDescription describe_float(hid_t type) {
  const bool little = H5Tget_order(type) == H5T_ORDER_LE;
  for (const auto& row : kFloats)
    if (matches(type, row))
      return {little ? row.stored : StoredAs::Other, !little,
              little ? row.name : fmt::format("big-endian {}", row.name)};
  return {StoredAs::Other, false, fmt::format("floats of {} bytes in another format", H5Tget_size(type))};
}

}  // namespace

Handle bf16_type() {
  const std::string doing = "build the bfloat16 type";
  auto type = own(H5Tcopy(H5T_IEEE_F32LE), H5Tclose, doing);
  check(H5Tset_fields(type.get(), 15, 7, 8, 0, 7),
        doing);  // fields before size: a size may not cut existing fields
  check(H5Tset_size(type.get(), 2), doing);
  check(H5Tset_ebias(type.get(), 127), doing);
  return type;
}

TypeDescription describe_type(const Handle& type) {
  const auto size = H5Tget_size(type.get());
  switch (H5Tget_class(type.get())) {
    case H5T_INTEGER: return describe_integer(type.get());
    case H5T_FLOAT: return describe_float(type.get());
    case H5T_STRING: return {StoredAs::Other, false, "text"};
    case H5T_ENUM:
      return {StoredAs::Other, false, fmt::format("an enumeration of {} bytes (h5py's bool is one)", size)};
    case H5T_OPAQUE: return {StoredAs::Other, false, fmt::format("opaque elements of {} bytes", size)};
    case H5T_COMPOUND: return {StoredAs::Other, false, "compound elements"};
    case H5T_BITFIELD: return {StoredAs::Other, false, "bit fields"};
    case H5T_REFERENCE: return {StoredAs::Other, false, "references"};
    case H5T_VLEN: return {StoredAs::Other, false, "lists of changing length"};
    case H5T_ARRAY: return {StoredAs::Other, false, "arrays"};
    default: return {StoredAs::Other, false, "elements of an unknown kind"};
  }
}

}  // namespace assay::hdf5
