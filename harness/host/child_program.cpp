#include "harness/host/child_program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "harness/contract/error.h"

extern char** environ;

namespace assay {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kMostDescriptors = 4;
constexpr int kSocketOfChild = 3;

/// Actions and attributes of a spawn, freed whatever happens.
struct Spawn {
  Spawn() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  ~Spawn() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  Spawn(const Spawn&) = delete;
  Spawn& operator=(const Spawn&) = delete;
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

/// Room for one message with its descriptors.
struct Envelope {
  Envelope(void* bytes, std::size_t size) : part{bytes, size} {
    header.msg_iov = &part;
    header.msg_iovlen = 1;
  }
  msghdr header{};
  iovec part;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMostDescriptors * sizeof(int))> control{};
};

/// The environment of a child that is none of this program's user's business.
std::vector<std::string> bare_environment() {
  std::vector<std::string> kept;
  // Where shared libraries are found, and a sanitizer's own among them.
  for (const char* name : {"LD_LIBRARY_PATH", "LD_PRELOAD"})
    if (const char* value = std::getenv(name)) kept.push_back(fmt::format("{}={}", name, value));
  // AddressSanitizer leaves signals and leaks to the child's parent, and reports memory that runs out as it
  // is.
  kept.emplace_back(
      "ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=0:handle_segv=0:handle_abort=0:handle_sigbus=0");
  return kept;
}

/// Pointers to each text and a null behind them, as exec wants them.
std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> all;
  for (auto& text : texts) all.push_back(text.data());
  all.push_back(nullptr);
  return all;
}

bool send_message(int socket, const void* message, std::size_t bytes, std::span<const int> descriptors) {
  Envelope envelope(const_cast<void*>(message), bytes);
  if (!descriptors.empty()) {
    envelope.header.msg_control = envelope.control.data();
    envelope.header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* attached = CMSG_FIRSTHDR(&envelope.header);
    attached->cmsg_level = SOL_SOCKET;
    attached->cmsg_type = SCM_RIGHTS;
    attached->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(attached), descriptors.data(), descriptors.size_bytes());
  }
  ssize_t sent = 0;
  do sent = ::sendmsg(socket, &envelope.header, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(bytes);
}

}  // namespace

ChildProgram::ChildProgram(std::vector<std::string> words, ChildSurroundings surroundings) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    throw InputError(fmt::format("expected a socket to a child process, found: {}", std::strerror(errno)));
  socket_ = ends[0];
  words.insert(words.begin(), "assay");
  words.push_back(std::to_string(kSocketOfChild));
  const auto arguments = pointers(words);
  const bool bare = surroundings == ChildSurroundings::Bare;
  auto texts = bare ? bare_environment() : std::vector<std::string>();
  const auto environment = pointers(texts);

  Spawn spawn;
  // dup2 onto itself keeps close-on-exec, but the number differs: the socket is no lower than 3 here.
  const int passed =
      ends[1] == kSocketOfChild ? ::fcntl(ends[1], F_DUPFD_CLOEXEC, kSocketOfChild + 1) : ends[1];
  posix_spawn_file_actions_adddup2(&spawn.actions, passed, kSocketOfChild);
  posix_spawn_file_actions_addopen(&spawn.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  if (bare) posix_spawn_file_actions_addopen(&spawn.actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&spawn.actions, STDERR_FILENO, STDOUT_FILENO);
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&spawn.attributes, &none);
  posix_spawnattr_setsigdefault(&spawn.attributes, &all);
  posix_spawnattr_setpgroup(&spawn.attributes, 0);
  posix_spawnattr_setflags(&spawn.attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  const int reason = ::posix_spawn(&pid_, "/proc/self/exe", &spawn.actions, &spawn.attributes,
                                   arguments.data(), bare ? environment.data() : environ);
  if (passed != ends[1]) ::close(passed);
  ::close(ends[1]);
  if (reason != 0) {
    ::close(socket_);
    throw InputError(fmt::format("expected to start a child process, found: {}", std::strerror(reason)));
  }
}

ChildProgram::~ChildProgram() {
  if (socket_ >= 0) ::close(socket_);
  resume();
  constexpr auto kMoment = std::chrono::seconds(1);
  for (const auto until = Clock::now() + kMoment; pid_ > 0 && !ended() && Clock::now() < until;)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  kill_group();
}

bool ChildProgram::send(const void* message, std::size_t bytes, std::span<const int> descriptors) {
  return send_message(socket_, message, bytes, descriptors);
}

bool ChildProgram::receive(void* message, std::size_t bytes, double seconds) {
  const auto until = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                        std::chrono::duration<double>(std::min(seconds, 1e9)));
  for (;;) {
    // A program that the child started may hold its end of the socket open: look after the child itself too.
    const bool gone = ended();
    pollfd waiting{socket_, POLLIN, 0};
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    const int ready = ::poll(&waiting, 1, gone ? 0 : static_cast<int>(std::clamp<long>(left + 1, 0, 50)));
    if (ready > 0 && (waiting.revents & POLLIN) != 0) {
      const ssize_t got = ::recv(socket_, message, bytes, 0);
      if (got == static_cast<ssize_t>(bytes)) return true;
    }
    if (gone) return false;
    // The socket is closed: the end is near.
    if (ready > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (Clock::now() >= until) {
      ending_ = {ChildEnding::How::OutOfTime, 0};
      kill_group();
      return false;
    }
  }
}

void ChildProgram::pause() {
  if (pid_ > 0 && !paused_) paused_ = ::kill(-pid_, SIGSTOP) == 0;
}

void ChildProgram::resume() {
  if (pid_ > 0 && paused_) ::kill(-pid_, SIGCONT);
  paused_ = false;
}

/// Whether the child has ended; then `ending_` is set and nothing of its group is left.
bool ChildProgram::ended() {
  if (pid_ <= 0) return true;
  int status = 0;
  const pid_t waited = ::waitpid(pid_, &status, WNOHANG);
  if (waited == 0 || (waited < 0 && errno == EINTR)) return false;
  if (WIFSIGNALED(status))
    ending_ = {ChildEnding::How::Signalled, WTERMSIG(status)};
  else
    ending_ = {ChildEnding::How::Exited, WEXITSTATUS(status)};
  ::kill(-pid_, SIGKILL);
  pid_ = -1;
  return true;
}

void ChildProgram::kill_group() {
  if (pid_ <= 0) return;
  ::kill(-pid_, SIGKILL);
  ::kill(pid_, SIGKILL);
  // A process that hangs in a driver may not end even so: it is not waited for without end.
  for (int i = 0; i < 1000 && ::waitpid(pid_, nullptr, WNOHANG) == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  pid_ = -1;
}

void live_as_child(int socket) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::fcntl(socket, F_SETFD, FD_CLOEXEC);
}

bool send_to_parent(int socket, const void* message, std::size_t bytes) {
  return send_message(socket, message, bytes, {});
}

bool receive_from_parent(int socket, void* message, std::size_t bytes, std::span<int> descriptors) {
  Envelope envelope(message, bytes);
  envelope.header.msg_control = envelope.control.data();
  envelope.header.msg_controllen = envelope.control.size();
  std::ranges::fill(descriptors, -1);
  ssize_t got = 0;
  do got = ::recvmsg(socket, &envelope.header, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got != static_cast<ssize_t>(bytes)) return false;
  const cmsghdr* attached = CMSG_FIRSTHDR(&envelope.header);
  if (attached != nullptr && attached->cmsg_type == SCM_RIGHTS)
    std::memcpy(descriptors.data(), CMSG_DATA(attached),
                std::min(descriptors.size_bytes(), attached->cmsg_len - CMSG_LEN(0)));
  return true;
}

}  // namespace assay
