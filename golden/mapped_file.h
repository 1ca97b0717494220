// A whole file mapped for reading.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace assay {

/// Maps a regular file. Throws InputError with the system's reason.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace assay
