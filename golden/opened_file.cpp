#include "golden/opened_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

#include <fmt/format.h>

#include "harness/contract/error.h"

namespace assay {

OpenedFile::OpenedFile(const std::filesystem::path& path) {
  const auto fail = [&](const std::string& reason) {
    if (descriptor_ >= 0) ::close(descriptor_);
    throw InputError(fmt::format("cannot read {}: {}", path.string(), reason));
  };
  // Non-blocking: a FIFO opens at once and is refused.
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) fail(std::generic_category().message(errno));
  struct ::stat status{};
  if (::fstat(descriptor_, &status) != 0) fail(std::generic_category().message(errno));
  if (!S_ISREG(status.st_mode)) fail(S_ISDIR(status.st_mode) ? "it is a folder" : "it is not a regular file");
  size_ = static_cast<std::uint64_t>(status.st_size);
}

OpenedFile::~OpenedFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OpenedFile::read(std::uint64_t at, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const auto got = ::pread(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw InputError(fmt::format("cannot be read: {}", std::generic_category().message(errno)));
    if (got == 0) throw InputError(fmt::format("ends before byte {}", at));
    bytes = bytes.subspan(static_cast<std::size_t>(got));
    at += static_cast<std::uint64_t>(got);
  }
}

}  // namespace assay
