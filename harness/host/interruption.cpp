#include "harness/host/interruption.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

namespace assay {
namespace {

struct Watched {
  int signal;
  const char* name;
  bool crash;
};
constexpr std::array<Watched, 8> kWatched = {{{SIGINT, "SIGINT", false},
                                              {SIGTERM, "SIGTERM", false},
                                              {SIGHUP, "SIGHUP", false},
                                              {SIGSEGV, "SIGSEGV", true},
                                              {SIGBUS, "SIGBUS", true},
                                              {SIGFPE, "SIGFPE", true},
                                              {SIGILL, "SIGILL", true},
                                              {SIGABRT, "SIGABRT", true}}};

// What handlers may touch.
int to_watcher = -1;
std::array<char, 65536> crash_stack;  // for a crash by a stack that is full
std::array<struct sigaction, kWatched.size()> before;

void tell_watcher(int signal) {
  const auto byte = static_cast<unsigned char>(signal);
  [[maybe_unused]] const auto written = ::write(to_watcher, &byte, 1);
}

void on_request(int signal) {
  tell_watcher(signal);
}  // the handler is taken off: a second one ends the program

/// This thread cannot go on; the watcher ends the program. Should it wait for a lock that this thread holds,
/// the alarm does.
void on_crash(int signal) {
  constexpr unsigned kSeconds = 20;
  ::alarm(kSeconds);
  tell_watcher(signal);
  for (;;) ::pause();
}

void end_by(int signal) {
  ::signal(signal, SIG_DFL);
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, signal);
  pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
  ::kill(::getpid(), signal);
  ::_exit(128 + signal);
}

}  // namespace

Interruption::Interruption(std::function<void(int signal)> last_words) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return;
  // The watcher takes no signal itself.
  sigset_t all;
  sigset_t mask;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &mask);
  try {
    watcher_ = std::thread([from = ends[0], words = std::move(last_words)] {
      unsigned char signal = 0;
      ssize_t got = 0;
      do got = ::read(from, &signal, 1);
      while (got < 0 && errno == EINTR);
      ::close(from);
      if (got != 1) return;  // nothing came
      words(signal);
      end_by(signal);
    });
  } catch (const std::system_error&) {
    pthread_sigmask(SIG_SETMASK, &mask, nullptr);
    ::close(ends[0]);
    ::close(ends[1]);
    return;
  }
  to_watcher = ends[1];
  stack_t alternate{};
  alternate.ss_sp = crash_stack.data();
  alternate.ss_size = crash_stack.size();
  sigaltstack(&alternate, nullptr);
  for (std::size_t i = 0; i < kWatched.size(); ++i) {
    struct sigaction action{};
    action.sa_handler = kWatched[i].crash ? on_crash : on_request;
    action.sa_flags = kWatched[i].crash ? SA_ONSTACK : static_cast<int>(SA_RESETHAND | SA_RESTART);
    sigaction(kWatched[i].signal, nullptr, &before[i]);
    // What the caller's shell told to ignore (nohup) stays ignored.
    if (before[i].sa_handler != SIG_IGN) sigaction(kWatched[i].signal, &action, nullptr);
  }
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
}

Interruption::~Interruption() {
  if (!watcher_.joinable()) return;
  for (std::size_t i = 0; i < kWatched.size(); ++i) sigaction(kWatched[i].signal, &before[i], nullptr);
  ::close(std::exchange(to_watcher, -1));
  watcher_.join();  // a signal that came before ends the program there
}

const char* signal_name(int signal) {
  for (const Watched& one : kWatched)
    if (one.signal == signal) return one.name;
  return "a signal";
}

}  // namespace assay
