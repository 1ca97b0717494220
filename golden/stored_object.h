// What an HDF5 file says about itself, as plain values: groups, attributes, shapes, types and where raw bytes
// lie. A child process reads it with the library (sealed_reader.h); everything else reads only this.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "harness/contract/tensor.h"

namespace assay::hdf5 {

/// How elements lie in the file. Other: everything that is not read; `StoredObject::type_name` says what.
enum class StoredAs : std::uint8_t { Bf16, Float16, Float32, Float64, Signed, Unsigned, Other };

struct StoredAttribute {
  enum class Kind : std::uint8_t { Text, Signed, Unsigned, Real, Unreadable };
  std::string name;
  Kind kind = Kind::Unreadable;
  std::string text;                     // Text; or why it is Unreadable
  std::vector<std::uint64_t> integers;  // Signed (two's complement) and Unsigned, 1 to 32 of them
  double real = 0.0;
};

/// One stretch of raw bytes: a chunk, or all of a contiguous dataset.
struct StoredStretch {
  std::uint64_t address = 0;  // from the file's first byte
  std::uint64_t bytes = 0;    // as stored; 0: never written
  std::uint32_t skipped = 0;  // bit i: filter i was not applied to this chunk
};

struct StoredFilter {
  std::int32_t id = 0;      // H5Z_FILTER_DEFLATE, ...
  std::uint32_t first = 0;  // its first parameter, if any
  std::string name;         // as the file calls it
};

enum class ObjectKind : std::uint8_t { Group, Dataset, Foreign };

struct StoredObject {
  std::string name;
  ObjectKind kind = ObjectKind::Foreign;
  std::string refusal;  // why it is not read, "is a soft link; only hard links are followed"; else empty
  std::vector<StoredAttribute> attributes;  // sorted by name
  std::vector<StoredObject> children;       // of a group, sorted by name

  // Of a dataset.
  Shape shape;
  StoredAs stored = StoredAs::Other;
  std::string type_name;  // "int64", "big-endian float32", "an enumeration of int8 (h5py's bool)"
  std::uint64_t element_size = 0;
  bool big_endian = false;
  Shape chunk;  // empty: contiguous
  std::vector<StoredFilter> filters;
  std::vector<StoredStretch> stretches;  // the grid of chunks in row-major order, or one
};

/// The child of that name, or null.
const StoredObject* find(const StoredObject& group, std::string_view name);

/// Attributes as C++ values. An absent attribute reads as nothing; another type or rank throws InputError.
/// `where` names the object in errors.
std::optional<std::string> read_string(const StoredObject& object, const char* name,
                                       const std::string& where);
std::optional<std::int64_t> read_int64(const StoredObject& object, const char* name,
                                       const std::string& where);
std::optional<std::uint64_t> read_uint64(const StoredObject& object, const char* name,
                                         const std::string& where);
std::optional<double> read_double(const StoredObject& object, const char* name, const std::string& where);
std::optional<Shape> read_shape(const StoredObject& object, const char* name, const std::string& where);

/// Any attribute as text: what `inspect` prints.
std::string attribute_text(const StoredAttribute& attribute);

}  // namespace assay::hdf5
