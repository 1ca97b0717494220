#include "golden/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <system_error>

#include <fmt/format.h>

#include "harness/error.h"

namespace assay {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, int code) {
  throw InputError(fmt::format("cannot write {}: {}", path.string(), std::generic_category().message(code)));
}

}  // namespace

void write_file_whole(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  const std::string temporary = fmt::format("{}.part{}", path.string(), ::getpid());
  const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) fail(path, errno);
  int code = 0;
  while (code == 0 && !bytes.empty()) {
    const auto written = ::write(descriptor, bytes.data(), bytes.size());
    if (written > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    } else if (errno != EINTR) {
      code = written == 0 ? ENOSPC : errno;
    }
  }
  // A full disk may be reported only here.
  if (code == 0 && ::fsync(descriptor) != 0 && errno != EINVAL) code = errno;
  if (::close(descriptor) != 0 && code == 0) code = errno;
  if (code == 0 && std::rename(temporary.c_str(), path.c_str()) != 0) code = errno;
  if (code != 0) {
    ::unlink(temporary.c_str());
    fail(path, code);
  }
}

}  // namespace assay
