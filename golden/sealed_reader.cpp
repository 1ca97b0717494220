#include "golden/sealed_reader.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include <fmt/format.h>

#include "golden/hdf5_tree.h"
#include "golden/mapped_file.h"
#include "golden/tree_message.h"
#include "harness/contract/error.h"
#include "harness/contract/printable.h"

#if defined(__SANITIZE_ADDRESS__)
#define ASSAY_UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ASSAY_UNDER_ASAN 1
#endif
#endif

namespace assay::hdf5 {
namespace {

constexpr const char* kChildArgument = "--assay-describe-hdf5";
constexpr int kFileDescriptor = 3;
constexpr int kPipeDescriptor = 4;

// Limits of the child. A golden's description takes 20 kB, 15 MB of memory and some milliseconds.
constexpr rlim_t kMemory = rlim_t{512} << 20;
constexpr rlim_t kCpuSeconds = 10;
constexpr std::size_t kLongestMessage = std::size_t{64} << 20;
constexpr auto kPatience = std::chrono::seconds(60);
#ifdef ASSAY_UNDER_ASAN
// Its shadow alone exceeds any RLIMIT_DATA.
constexpr const char* kSanitizerOptions =
    "ASAN_OPTIONS=hard_rss_limit_mb=900:max_allocation_size_mb=512:allocator_may_return_null=1:detect_leaks="
    "0:"
    "handle_segv=0:handle_abort=0";
#endif

// ---- The child.

void write_all_bytes(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto written = ::write(kPipeDescriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

[[noreturn]] void be_the_child() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const auto limit = [](auto resource, rlim_t most) {
    const rlimit value{most, most};
    ::setrlimit(resource, &value);
  };
  limit(RLIMIT_CORE, 0);
  const rlimit time{kCpuSeconds, kCpuSeconds + 1};  // SIGXCPU first, which says why
  ::setrlimit(RLIMIT_CPU, &time);
  limit(RLIMIT_FSIZE, 0);
#ifndef ASSAY_UNDER_ASAN
  limit(RLIMIT_DATA, kMemory);
#endif
  std::string message;
  try {
    const auto path = fmt::format("/proc/self/fd/{}", kFileDescriptor);
    const MappedFile file(path);
    message = encode(read_tree(path, file.bytes()));
  } catch (const std::bad_alloc&) {
    message = encode_refusal("its metadata do not fit in memory");
  } catch (const std::exception& error) {
    message = encode_refusal(error.what());
  }
  write_all_bytes(message);
  // No destructor of the library runs: it may trip over what the file left behind.
  ::_exit(0);
}

/// glibc hands constructors the arguments of main().
__attribute__((constructor)) void enter_the_child(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], kChildArgument) == 0) be_the_child();
}

// ---- The parent.

/// A descriptor above those that the child is given.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }
  int get() const { return value_; }
  void close() {
    if (value_ >= 0) ::close(value_);
    value_ = -1;
  }

 private:
  int value_;
};

int lifted(int descriptor) {
  constexpr int kAbove = 10;
  const int high = ::fcntl(descriptor, F_DUPFD_CLOEXEC, kAbove);
  if (high < 0) throw InputError(fmt::format("no file descriptor is left: {}", std::strerror(errno)));
  return high;
}

pid_t start_child(int file, int pipe) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  if (::posix_spawn_file_actions_init(&actions) != 0) throw std::bad_alloc();
  if (::posix_spawnattr_init(&attributes) != 0) throw std::bad_alloc();
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    ::posix_spawn_file_actions_addopen(&actions, standard, "/dev/null", O_RDWR, 0);
  ::posix_spawn_file_actions_adddup2(&actions, file, kFileDescriptor);
  ::posix_spawn_file_actions_adddup2(&actions, pipe, kPipeDescriptor);
  sigset_t none;
  sigset_t defaults;
  ::sigemptyset(&none);
  ::sigemptyset(&defaults);
  for (const int signal : {SIGPIPE, SIGXCPU, SIGXFSZ, SIGSEGV, SIGABRT}) ::sigaddset(&defaults, signal);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &defaults);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::string name = "assay";
  std::string argument = kChildArgument;
  char* arguments[] = {name.data(), argument.data(), nullptr};
  std::vector<std::string> kept;
  // Where shared libraries are found; nothing else of the environment is the file's business.
  if (const char* value = ::getenv("LD_LIBRARY_PATH"))
    kept.push_back(fmt::format("LD_LIBRARY_PATH={}", value));
#ifdef ASSAY_UNDER_ASAN
  if (const char* value = ::getenv("LD_PRELOAD")) kept.push_back(fmt::format("LD_PRELOAD={}", value));
  kept.emplace_back(kSanitizerOptions);
#endif
  std::vector<char*> environment;
  for (auto& one : kept) environment.push_back(one.data());
  environment.push_back(nullptr);
  pid_t child = -1;
  const int code =
      ::posix_spawn(&child, "/proc/self/exe", &actions, &attributes, arguments, environment.data());
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (code != 0) throw InputError(fmt::format("no process to read it in: {}", std::strerror(code)));
  return child;
}

/// Everything until the pipe ends. Empty when it takes too long or grows too large.
std::vector<std::byte> read_message(int pipe) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  std::vector<std::byte> message;
  std::vector<std::byte> piece(std::size_t{64} << 10);
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
    pollfd waiting{pipe, POLLIN, 0};
    const int ready = left <= 0 ? 0 : ::poll(&waiting, 1, static_cast<int>(left));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return {};
    const auto got = ::read(pipe, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return {};
    if (got == 0) return message;
    if (message.size() + static_cast<std::size_t>(got) > kLongestMessage) return {};
    message.insert(message.end(), piece.begin(), piece.begin() + got);
  }
}

/// How a child that did not finish ended.
std::string ending(int status) {
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)
    return fmt::format("HDF5 does not finish reading its metadata within {} s", kCpuSeconds);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return "HDF5 does not finish reading its metadata";
  return fmt::format("its metadata are damaged: HDF5 crashes while it reads them{}",
                     WIFSIGNALED(status) ? fmt::format(" (signal {})", WTERMSIG(status)) : std::string());
}

StoredObject described(const OpenedFile& file) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    throw InputError(fmt::format("no pipe is left: {}", std::strerror(errno)));
  Descriptor reading(ends[0]);
  Descriptor writing_low(ends[1]);
  Descriptor writing(lifted(writing_low.get()));
  Descriptor source(lifted(file.descriptor()));
  writing_low.close();
  const pid_t child = start_child(source.get(), writing.get());
  writing.close();
  std::vector<std::byte> message;
  try {
    message = read_message(reading.get());
  } catch (const std::bad_alloc&) {
  }
  if (message.empty()) ::kill(child, SIGKILL);  // one that has ended is not harmed
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || message.empty()) throw InputError(ending(status));
  return decode(message);
}

}  // namespace

DescribedFile describe_file(const std::filesystem::path& path) {
  auto bytes = std::make_shared<const OpenedFile>(path);
  try {
    auto root = described(*bytes);
    return {std::move(bytes), std::move(root)};
  } catch (const InputError& error) {
    throw InputError(printable(fmt::format("cannot read {}: {}", path.string(), error.what())));
  }
}

}  // namespace assay::hdf5
