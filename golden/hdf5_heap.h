// HDF5 keeps variable-length strings in "global heap collections", the one structure without a checksum.
// Where sizes or indices in them are damaged, the library reads or writes outside its memory, so they are
// checked before it sees them.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace assay::hdf5 {

/// Every text in a file's heap collections. A text the library returns that is none of them does not come
/// from the file.
struct TextHeap {
  std::string damage;                   // why the collections cannot be trusted, or empty
  std::vector<std::string_view> texts;  // sorted

  bool holds(std::string_view text) const;
};

/// `file` is the whole file and outlives the result. Collections are expected as they are after one writing:
/// objects 1..n, all of them texts.
TextHeap read_text_heap(std::span<const std::byte> file);

}  // namespace assay::hdf5
