#include "golden/hdf5_attribute.h"

#include <fmt/format.h>

namespace assay::hdf5 {
namespace {

void write(const Handle& object, const char* name, hid_t type, const hsize_t* extent, const void* value) {
  const std::string doing = fmt::format("write attribute {}", name);
  const auto space =
      own(extent == nullptr ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, extent, nullptr), H5Sclose, doing);
  const auto attribute =
      own(H5Acreate2(object.get(), name, type, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose, doing);
  check(H5Awrite(attribute.get(), type, value), doing);
}

}  // namespace

void write_string(const Handle& object, const char* name, const std::string& value) {
  const auto type = own(H5Tcopy(H5T_C_S1), H5Tclose, "build a string type");
  check(H5Tset_size(type.get(), H5T_VARIABLE), "build a string type");
  check(H5Tset_cset(type.get(), H5T_CSET_UTF8), "build a string type");
  const char* text = value.c_str();
  write(object, name, type.get(), nullptr, static_cast<const void*>(&text));
}

void write_int64(const Handle& object, const char* name, std::int64_t value) {
  write(object, name, H5T_STD_I64LE, nullptr, &value);
}
void write_uint64(const Handle& object, const char* name, std::uint64_t value) {
  write(object, name, H5T_STD_U64LE, nullptr, &value);
}
void write_double(const Handle& object, const char* name, double value) {
  write(object, name, H5T_IEEE_F64LE, nullptr, &value);
}
void write_shape(const Handle& object, const char* name, const Shape& value) {
  const hsize_t extent = value.size();
  write(object, name, H5T_STD_I64LE, &extent, value.data());
}

}  // namespace assay::hdf5
