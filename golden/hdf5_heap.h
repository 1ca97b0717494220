// HDF5 keeps variable-length strings in "global heap collections", the one structure without a checksum.
// Where sizes or indices in them are damaged, the library reads or writes outside its memory, so they are
// checked before it sees them.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace assay::hdf5 {

/// The reason why a file's heap collections cannot be trusted, or an empty text. `file` is the whole file.
/// Collections are expected as they are after one writing: objects 1..n, all of them texts.
std::string damaged_heap(std::span<const std::byte> file);

}  // namespace assay::hdf5
