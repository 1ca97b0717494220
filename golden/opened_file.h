// An opened file whose bytes are read in place: a file that is cut short meanwhile is an error, never a
// signal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace assay {

/// Opens a regular file. Throws InputError with the system's reason: a folder, a FIFO, no permission.
class OpenedFile {
 public:
  explicit OpenedFile(const std::filesystem::path& path);
  OpenedFile(const OpenedFile&) = delete;
  OpenedFile& operator=(const OpenedFile&) = delete;
  ~OpenedFile();

  int descriptor() const { return descriptor_; }
  std::uint64_t size() const { return size_; }
  /// Fills `bytes` from `at` on. Throws InputError when the file ends before.
  void read(std::uint64_t at, std::span<std::byte> bytes) const;

 private:
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

}  // namespace assay
