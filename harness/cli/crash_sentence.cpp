#include "harness/cli/crash_sentence.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "harness/contract/exit_code.h"

namespace assay::cli {
namespace {

constexpr std::array kSignals = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

// What a handler may touch: plain memory, made ready before.
std::array<char, 1024> text;
std::array<struct sigaction, kSignals.size()> before;
std::array<char, 65536> stack;  // for a crash by a stack that is full

void last_words(int signal) {
  const char digits[] = {static_cast<char>('0' + signal / 10), static_cast<char>('0' + signal % 10), ')',
                         '\n'};
  [[maybe_unused]] auto written = write(STDERR_FILENO, text.data(), std::strlen(text.data()));
  written = signal < 10 ? write(STDERR_FILENO, digits + 1, 3) : write(STDERR_FILENO, digits, 4);
  _exit(static_cast<int>(ExitCode::Failed));
}

}  // namespace

CrashSentence::CrashSentence(const std::string& sentence) {
  const std::string all = "assay: error: " + sentence.substr(0, 900) + " (signal ";
  std::memcpy(text.data(), all.c_str(), all.size() + 1);
  stack_t alternate{};
  alternate.ss_sp = stack.data();
  alternate.ss_size = stack.size();
  sigaltstack(&alternate, nullptr);
  struct sigaction action{};
  action.sa_handler = last_words;
  action.sa_flags = SA_ONSTACK;
  for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &action, &before[i]);
}

CrashSentence::~CrashSentence() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before[i], nullptr);
  stack_t none{};
  none.ss_flags = SS_DISABLE;
  sigaltstack(&none, nullptr);
}

}  // namespace assay::cli
