// Attributes of HDF5 objects as C++ values. An absent attribute reads as nothing; a wrong type or rank throws
// InputError.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "golden/hdf5_handle.h"
#include "harness/contract/tensor.h"

namespace assay::hdf5 {

/// `where` names the object in errors. Variable-length and fixed-length strings are both read.
std::optional<std::string> read_string(const Handle& object, const char* name, const std::string& where);
std::optional<std::int64_t> read_int64(const Handle& object, const char* name, const std::string& where);
std::optional<std::uint64_t> read_uint64(const Handle& object, const char* name, const std::string& where);
std::optional<double> read_double(const Handle& object, const char* name, const std::string& where);
std::optional<Shape> read_shape(const Handle& object, const char* name, const std::string& where);

/// UTF-8, variable length.
void write_string(const Handle& object, const char* name, const std::string& value);
void write_int64(const Handle& object, const char* name, std::int64_t value);
void write_uint64(const Handle& object, const char* name, std::uint64_t value);
void write_double(const Handle& object, const char* name, double value);
void write_shape(const Handle& object, const char* name, const Shape& value);

/// Names of an object's attributes, sorted by bytes.
std::vector<std::string> attribute_names(const Handle& object, const std::string& where);

}  // namespace assay::hdf5
