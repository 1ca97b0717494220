// HDF5's element types: those the schema writes, and how any other is called.
#pragma once

#include <string>

#include "golden/hdf5_handle.h"
#include "golden/stored_object.h"

namespace assay::hdf5 {

/// The 2-byte little-endian float with bfloat16's fields: sign 15, exponent 14..7, fraction 6..0, bias 127.
Handle bf16_type();

struct TypeDescription {
  StoredAs stored = StoredAs::Other;
  bool big_endian = false;
  std::string name;  // "int64", "big-endian float32", "text"
};

/// Integers of 1, 2, 4 and 8 whole bytes in either byte order, and the four little-endian floats are told
/// apart; everything else is Other, and named.
TypeDescription describe_type(const Handle& type);

}  // namespace assay::hdf5
