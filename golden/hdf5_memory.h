// HDF5 files built in memory. On a full disk the library would fail inside its own close and never let go of
// the file; this way it never meets a disk, and our own write can fail cleanly.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>

#include "golden/hdf5_handle.h"

namespace assay::hdf5 {

/// The bytes of a closed file.
struct Image {
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory;
  std::size_t size = 0;
  std::span<const std::byte> bytes() const { return {memory.get(), size}; }
};

/// A new file with format bounds v1.10 (all metadata checksummed) and no object times.
class MemoryFile {
 public:
  /// `expected_bytes` only sets the steps in which memory grows.
  explicit MemoryFile(std::size_t expected_bytes);
  const Handle& handle() const { return file_; }

  /// Closes the file, and every object still open in it, and hands its bytes over.
  Image finish();

 private:
  std::unique_ptr<Image> image_;  // the library's callbacks hold its address; outlives file_
  Handle file_;
};

}  // namespace assay::hdf5
