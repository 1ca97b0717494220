// Attributes of HDF5 objects, written. stored_object.h reads them.
#pragma once

#include <cstdint>
#include <string>

#include "golden/hdf5_handle.h"
#include "harness/contract/tensor.h"

namespace assay::hdf5 {

/// UTF-8, variable length.
void write_string(const Handle& object, const char* name, const std::string& value);
void write_int64(const Handle& object, const char* name, std::int64_t value);
void write_uint64(const Handle& object, const char* name, std::uint64_t value);
void write_double(const Handle& object, const char* name, double value);
void write_shape(const Handle& object, const char* name, const Shape& value);

}  // namespace assay::hdf5
