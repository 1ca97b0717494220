#include "golden/hdf5_attribute.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "harness/contract/error.h"

namespace assay::hdf5 {
namespace {

/// An attribute being read: its type, and how many elements it has.
struct Opened {
  Handle attribute;
  Handle type;
  std::int64_t count = 0;
  std::string doing;

  void require(bool good, const char* expected) const {
    if (!good) throw InputError(fmt::format("cannot {}: expected {}", doing, expected));
  }
  bool has_class(H5T_class_t expected) const { return H5Tget_class(type.get()) == expected; }
};

std::optional<Opened> open(const Handle& object, const char* name, const std::string& where) {
  Opened opened;
  opened.doing = fmt::format("read attribute {} of {}", name, where);
  if (check(H5Aexists(object.get(), name), opened.doing) == 0) return std::nullopt;
  opened.attribute = own(H5Aopen(object.get(), name, H5P_DEFAULT), H5Aclose, opened.doing);
  opened.type = own(H5Aget_type(opened.attribute.get()), H5Tclose, opened.doing);
  const auto space = own(H5Aget_space(opened.attribute.get()), H5Sclose, opened.doing);
  opened.count = check(H5Sget_simple_extent_npoints(space.get()), opened.doing);
  return opened;
}

void write(const Handle& object, const char* name, hid_t type, const hsize_t* extent, const void* value) {
  const std::string doing = fmt::format("write attribute {}", name);
  const auto space =
      own(extent == nullptr ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, extent, nullptr), H5Sclose, doing);
  const auto attribute =
      own(H5Acreate2(object.get(), name, type, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose, doing);
  check(H5Awrite(attribute.get(), type, value), doing);
}

bool is_unsigned(const Opened& opened) { return H5Tget_sign(opened.type.get()) == H5T_SGN_NONE; }

}  // namespace

std::optional<std::string> read_string(const Handle& object, const char* name, const std::string& where) {
  const auto opened = open(object, name, where);
  if (!opened) return std::nullopt;
  opened->require(opened->has_class(H5T_STRING) && opened->count == 1, "one string");
  if (check(H5Tis_variable_str(opened->type.get()), opened->doing) > 0) {
    char* text = nullptr;
    check(H5Aread(opened->attribute.get(), opened->type.get(), static_cast<void*>(&text)), opened->doing);
    std::string value = text == nullptr ? "" : text;
    H5free_memory(text);
    return value;
  }
  std::string value(H5Tget_size(opened->type.get()), '\0');
  check(H5Aread(opened->attribute.get(), opened->type.get(), value.data()), opened->doing);
  if (H5Tget_strpad(opened->type.get()) == H5T_STR_SPACEPAD) {
    value.erase(value.find_last_not_of(' ') + 1);
  } else {
    value.erase(std::min(value.find('\0'), value.size()));
  }
  return value;
}

std::optional<std::int64_t> read_int64(const Handle& object, const char* name, const std::string& where) {
  const auto opened = open(object, name, where);
  if (!opened) return std::nullopt;
  opened->require(opened->has_class(H5T_INTEGER) && opened->count == 1, "one integer");
  if (is_unsigned(*opened)) {
    // HDF5 would clamp what does not fit, without a word.
    std::uint64_t value = 0;
    check(H5Aread(opened->attribute.get(), H5T_NATIVE_UINT64, &value), opened->doing);
    opened->require(value <= std::uint64_t{std::numeric_limits<std::int64_t>::max()},
                    "an integer below 2^63");
    return static_cast<std::int64_t>(value);
  }
  std::int64_t value = 0;
  check(H5Aread(opened->attribute.get(), H5T_NATIVE_INT64, &value), opened->doing);
  return value;
}

std::optional<std::uint64_t> read_uint64(const Handle& object, const char* name, const std::string& where) {
  const auto opened = open(object, name, where);
  if (!opened) return std::nullopt;
  opened->require(opened->has_class(H5T_INTEGER) && opened->count == 1, "one integer");
  if (!is_unsigned(*opened)) {
    std::int64_t value = 0;
    check(H5Aread(opened->attribute.get(), H5T_NATIVE_INT64, &value), opened->doing);
    opened->require(value >= 0, "an integer that is not negative");
    return static_cast<std::uint64_t>(value);
  }
  std::uint64_t value = 0;
  check(H5Aread(opened->attribute.get(), H5T_NATIVE_UINT64, &value), opened->doing);
  return value;
}

std::optional<double> read_double(const Handle& object, const char* name, const std::string& where) {
  const auto opened = open(object, name, where);
  if (!opened) return std::nullopt;
  opened->require(
      opened->has_class(H5T_FLOAT) && opened->count == 1 && H5Tget_size(opened->type.get()) == sizeof(double),
      "one float64");
  double value = 0.0;
  check(H5Aread(opened->attribute.get(), H5T_NATIVE_DOUBLE, &value), opened->doing);
  return value;
}

std::optional<Shape> read_shape(const Handle& object, const char* name, const std::string& where) {
  const auto opened = open(object, name, where);
  if (!opened) return std::nullopt;
  opened->require(opened->has_class(H5T_INTEGER) && opened->count >= 1 && opened->count <= H5S_MAX_RANK,
                  "a list of integers");
  Shape value(static_cast<std::size_t>(opened->count));
  check(H5Aread(opened->attribute.get(), H5T_NATIVE_INT64, value.data()), opened->doing);
  return value;
}

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

std::vector<std::string> attribute_names(const Handle& object, const std::string& where) {
  std::vector<std::string> names;
  const H5A_operator2_t keep = [](hid_t, const char* name, const H5A_info_t*, void* list) -> herr_t {
    static_cast<std::vector<std::string>*>(list)->emplace_back(name);
    return 0;
  };
  check(H5Aiterate2(object.get(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, keep, &names),
        fmt::format("list the attributes of {}", where));
  std::ranges::sort(names);
  return names;
}

}  // namespace assay::hdf5
