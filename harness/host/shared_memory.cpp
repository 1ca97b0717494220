#include "harness/host/shared_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>

#include "harness/contract/error.h"

namespace assay {

SharedMemory::SharedMemory(std::size_t bytes) : size_(bytes == 0 ? 1 : bytes) {
  const auto fail = [&](int reason) {
    release();
    throw InputError(
        fmt::format("expected {} bytes of shared memory, found: {}", size_, std::strerror(reason)));
  };
  file_ = ::memfd_create("assay", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (file_ < 0) fail(errno);
  // posix_fallocate is interrupted by signals on large sizes.
  int reason = 0;
  do reason = ::posix_fallocate(file_, 0, static_cast<off_t>(size_));
  while (reason == EINTR);
  if (reason != 0) fail(reason);
  // A file that shrinks would take the pages from under this process.
  if (::fcntl(file_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) fail(errno);
  void* mapped = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
  if (mapped == MAP_FAILED) fail(errno);
  data_ = static_cast<std::byte*>(mapped);
  read_only_ = ::open(fmt::format("/proc/self/fd/{}", file_).c_str(), O_RDONLY | O_CLOEXEC);
  if (read_only_ < 0) fail(errno);
}

SharedMemory::~SharedMemory() { release(); }

void SharedMemory::release() {
  if (data_ != nullptr) ::munmap(data_, size_);
  if (file_ >= 0) ::close(file_);
  if (read_only_ >= 0) ::close(read_only_);
}

}  // namespace assay
