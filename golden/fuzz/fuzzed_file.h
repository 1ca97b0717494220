// A fuzzer's bytes as a file that readers open by its path. HDF5 asks for the real path of what it opens,
// which a file in memory has not.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>

namespace assay::fuzz {

class FuzzedFile {
 public:
  explicit FuzzedFile(std::span<const std::byte> bytes)
      : path_((std::filesystem::temp_directory_path() / "assay-fuzz-XXXXXX").string()) {
    const int descriptor = ::mkostemp(path_.data(), O_CLOEXEC);
    if (descriptor < 0 ||
        ::write(descriptor, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
      std::abort();
    ::close(descriptor);
  }
  FuzzedFile(const FuzzedFile&) = delete;
  FuzzedFile& operator=(const FuzzedFile&) = delete;
  ~FuzzedFile() { ::unlink(path_.c_str()); }
  std::filesystem::path path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace assay::fuzz
