#include "harness/host/sealed_task.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "harness/contract/error.h"

namespace assay {
namespace {

/// How the copy of the child ended: a status of waitpid, or why there was none.
struct CopyEnding {
  int status = 0;
  int no_process = 0;  // errno of fork
};

// ---- The child.

/// Pages of memory that count against RLIMIT_DATA now; a sanitizer's shadow is among them.
std::uint64_t pages_held() {
  unsigned long long total = 0;
  unsigned long long resident = 0;
  unsigned long long shared = 0;
  unsigned long long text = 0;
  unsigned long long library = 0;
  unsigned long long data = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  const int found =
      std::fscanf(file, "%llu %llu %llu %llu %llu %llu", &total, &resident, &shared, &text, &library, &data);
  std::fclose(file);
  return found == 6 ? data : 0;
}

void limit(int resource, std::uint64_t soft, std::uint64_t hard) {
  const rlimit value{soft, hard};
  ::setrlimit(static_cast<__rlimit_resource>(resource), &value);
}

void impose(const TaskLimits& limits) {
  limit(RLIMIT_CORE, 0, 0);
  const auto seconds = static_cast<std::uint64_t>(limits.processor_time.count());
  limit(RLIMIT_CPU, seconds, seconds + 1);  // SIGXCPU first, which says why
  limit(RLIMIT_FSIZE, limits.answer, limits.answer);
  const auto memory = pages_held() * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) + limits.memory;
  limit(RLIMIT_DATA, memory, memory);
  ::alarm(static_cast<unsigned>(limits.time.count()));
}

[[noreturn]] void live_as_copy(int file, int answer, const TaskLimits& limits,
                               std::string (*task)(int descriptor)) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  impose(limits);
  const std::string text = task(file);
  for (std::string_view rest = text; !rest.empty();) {
    const auto written = ::write(answer, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) ::_exit(1);
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  // No destructor runs: it may trip over what the file left behind.
  ::_exit(0);
}

// ---- The parent.

std::vector<std::byte> everything(int descriptor, std::uint64_t most) {
  struct ::stat status{};
  if (::fstat(descriptor, &status) != 0 || status.st_size < 0 ||
      static_cast<std::uint64_t>(status.st_size) > most)
    return {};
  std::vector<std::byte> bytes(static_cast<std::size_t>(status.st_size));
  std::size_t taken = 0;
  while (taken < bytes.size()) {
    const auto got =
        ::pread(descriptor, bytes.data() + taken, bytes.size() - taken, static_cast<off_t>(taken));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return {};
    taken += static_cast<std::size_t>(got);
  }
  return bytes;
}

/// An anonymous file for one answer.
class AnswerFile {
 public:
  AnswerFile() : descriptor_(::memfd_create("assay", MFD_CLOEXEC)) {
    if (descriptor_ < 0)
      throw InputError(fmt::format("expected a file in memory, found: {}", std::strerror(errno)));
  }
  ~AnswerFile() { ::close(descriptor_); }
  AnswerFile(const AnswerFile&) = delete;
  AnswerFile& operator=(const AnswerFile&) = delete;
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

}  // namespace

void serve_sealed_tasks(int socket, std::string (*task)(int descriptor)) {
  ::fcntl(socket, F_SETFD, FD_CLOEXEC);
  TaskLimits limits;
  for (std::array<int, 2> files{}; receive_from_parent(socket, &limits, sizeof(limits), files);) {
    CopyEnding outcome;
    const pid_t copy = ::fork();
    if (copy == 0) {
      ::close(socket);
      live_as_copy(files[0], files[1], limits, task);
    }
    if (copy < 0) outcome.no_process = errno;
    for (const int file : files) ::close(file);
    if (copy > 0)
      while (::waitpid(copy, &outcome.status, 0) < 0 && errno == EINTR) {
      }
    if (!send_to_parent(socket, &outcome, sizeof(outcome))) break;
  }
  ::_exit(0);
}

TaskAnswer SealedTasks::run(int descriptor) {
  const std::lock_guard held(one_at_a_time_);
  const AnswerFile file;
  const std::array files{descriptor, file.descriptor()};
  // One that somebody ended meanwhile is replaced.
  if (!child_ || !child_->send(&limits_, sizeof(limits_), files)) {
    child_ = std::make_unique<ChildProgram>(std::vector<std::string>{word_}, ChildSurroundings::Bare);
    child_->send(&limits_, sizeof(limits_), files);  // where it has gone, receive says so
  }
  CopyEnding outcome;
  TaskAnswer answer;
  // Beyond the task's own alarm: a copy that was taken over may have switched it off.
  const auto patience = static_cast<double>(limits_.time.count() + 10);
  if (!child_->receive(&outcome, sizeof(outcome), patience)) {
    answer.ending = child_->ending();
    child_.reset();
    return answer;
  }
  if (outcome.no_process != 0)
    throw InputError(fmt::format("expected a process, found: {}", std::strerror(outcome.no_process)));
  if (WIFSIGNALED(outcome.status) && WTERMSIG(outcome.status) == SIGALRM) {
    answer.ending = {ChildEnding::How::OutOfTime, 0};
  } else if (WIFSIGNALED(outcome.status)) {
    answer.ending = {ChildEnding::How::Signalled, WTERMSIG(outcome.status)};
  } else {
    answer.ending = {ChildEnding::How::Exited, WEXITSTATUS(outcome.status)};
  }
  if (answer.complete()) answer.bytes = everything(file.descriptor(), limits_.answer);
  return answer;
}

}  // namespace assay
