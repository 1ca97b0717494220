// Memory that two processes see.
#pragma once

#include <cstddef>

namespace assay {

/// Owns an anonymous file of fixed size, mapped for reading and writing in this process. Its pages are
/// reserved at once: memory that runs out is an InputError here, not a signal later.
class SharedMemory {
 public:
  explicit SharedMemory(std::size_t bytes);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  /// To be handed to another process, which maps it for reading and writing.
  int descriptor() const { return file_; }
  /// The same file; no mapping of this one can be written to. Owned by this object.
  int read_only_descriptor() const { return read_only_; }

 private:
  void release();

  std::size_t size_ = 0;
  std::byte* data_ = nullptr;
  int file_ = -1;
  int read_only_ = -1;
};

}  // namespace assay
