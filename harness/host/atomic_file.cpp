#include "harness/host/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "harness/contract/error.h"

namespace assay {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& path, std::string_view reason) {
  throw InputError(
      fmt::format("expected to write {}, found that it cannot be written: {}", path.string(), reason));
}

[[noreturn]] void fail(const fs::path& path, int reason) { fail(path, std::strerror(reason)); }

/// A file over the process's size limit raises SIGXFSZ, which would end the process and leave the temporary
/// file. While this lives the signal is held back, so that write() fails with EFBIG instead; one that has
/// come is taken off again.
class HoldFileSizeSignal {
 public:
  HoldFileSizeSignal() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &signals_, &before_);
  }
  ~HoldFileSizeSignal() {
    const timespec now{};
    sigtimedwait(&signals_, nullptr, &now);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  HoldFileSizeSignal(const HoldFileSizeSignal&) = delete;
  HoldFileSizeSignal& operator=(const HoldFileSizeSignal&) = delete;

 private:
  sigset_t signals_{};
  sigset_t before_{};
};

/// Writes everything and closes. Returns errno of the first call that failed, or 0.
int write_and_close(int file, std::string_view bytes, bool flush) {
  const HoldFileSizeSignal hold;
  int reason = 0;
  while (!bytes.empty() && reason == 0) {
    const ssize_t written = ::write(file, bytes.data(), bytes.size());
    if (written >= 0)
      bytes.remove_prefix(static_cast<std::size_t>(written));
    else if (errno != EINTR)
      reason = errno;
  }
  if (reason == 0 && flush && ::fsync(file) != 0 && errno != EINVAL) reason = errno;
  if (::close(file) != 0 && reason == 0) reason = errno;
  return reason;
}

/// A FIFO that nobody reads must not hold the program: it is opened without waiting, then written as any
/// other.
void write_directly(const fs::path& path, std::string_view bytes) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0 && errno == ENXIO && fs::is_fifo(path)) fail(path, "it is a FIFO that nobody reads");
  if (file < 0) fail(path, errno);
  ::fcntl(file, F_SETFL, ::fcntl(file, F_GETFL) & ~O_NONBLOCK);
  if (const int reason = write_and_close(file, bytes, false); reason != 0) fail(path, reason);
}

/// The permissions a new file would have, or those of the file that is replaced.
mode_t mode_for(const fs::path& target) {
  struct stat old{};
  if (::stat(target.c_str(), &old) == 0) return old.st_mode & 07777;
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return 0666 & ~mask;
}

}  // namespace

void write_file_atomically(const fs::path& path, std::string_view bytes) {
  std::error_code ignored;
  const fs::path target = fs::is_symlink(path, ignored) ? fs::weakly_canonical(path, ignored) : path;
  const fs::file_status status = fs::status(target, ignored);
  if (fs::is_directory(status)) fail(path, EISDIR);
  if (fs::exists(status) && !fs::is_regular_file(status)) return write_directly(target, bytes);

  const fs::path folder = target.has_parent_path() ? target.parent_path() : ".";
  std::string temporary = (folder / fmt::format(".{}.XXXXXX", target.filename().string())).string();
  const mode_t mode = mode_for(target);
  const int file = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (file < 0) fail(path, errno);
  // A file system without permissions of its own (FAT, some network shares) refuses; the file is none the
  // worse.
  [[maybe_unused]] const int refused = ::fchmod(file, mode);
  int reason = write_and_close(file, bytes, true);
  if (reason == 0 && ::rename(temporary.c_str(), target.c_str()) != 0) reason = errno;
  if (reason != 0) {
    ::unlink(temporary.c_str());
    fail(path, reason);
  }
}

}  // namespace assay
