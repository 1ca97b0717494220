// Tasks that crash, hang, eat memory or talk without end cost their own answer and nothing else.
#include "harness/host/sealed_task.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

using namespace assay;

namespace {

constexpr const char* kWord = "--assay-test-task";
// Time enough for a busy machine to give a task its second of processor time.
constexpr TaskLimits kLimits = {.memory = std::uint64_t{64} << 20,
                                .answer = 1 << 16,
                                .processor_time = std::chrono::seconds(1),
                                .time = std::chrono::seconds(250)};

volatile int at_zero = 0;

/// Does what the file says.
std::string obey(int descriptor) {
  std::array<char, 64> bytes{};
  const auto got = ::pread(descriptor, bytes.data(), bytes.size(), 0);
  const std::string order(bytes.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
  if (order == "crash") std::raise(SIGSEGV);
  if (order == "exit") ::_exit(7);
  if (order == "spin")
    while (at_zero == 0) continue;
  if (order == "sleep") ::pause();
  if (order == "talk") return std::string(kLimits.answer + 1, 'x');
  if (order ==
      "eat") {  // by malloc, as HDF5: operator new of AddressSanitizer ends the process where it has none
    volatile char* room = static_cast<volatile char*>(std::malloc(std::size_t{100} << 20));
    if (room == nullptr) return "too much";
    room[0] = 'x';
    return "eaten";
  }
  if (order == "home") return std::getenv("HOME") == nullptr ? "none" : "known";
  return "did " + order;
}

__attribute__((constructor)) void enter_the_child(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], kWord) == 0) serve_sealed_tasks(std::atoi(argv[2]), obey);
}

TaskAnswer run(SealedTasks& tasks, const std::string& order) {
  const int file = ::memfd_create("order", MFD_CLOEXEC);
  REQUIRE(::write(file, order.data(), order.size()) == static_cast<ssize_t>(order.size()));
  auto answer = tasks.run(file);
  ::close(file);
  return answer;
}

std::string text(const TaskAnswer& answer) {
  REQUIRE(answer.complete());
  return {reinterpret_cast<const char*>(answer.bytes.data()), answer.bytes.size()};
}

}  // namespace

TEST_SUITE("sealed_task") {
  TEST_CASE("a task that ends badly says how, and the next one is answered") {
    using How = ChildEnding::How;
    SealedTasks tasks(kWord, kLimits);
    const auto ends = [&](const char* order, How how, int number) {
      CAPTURE(std::string(order));
      const auto answer = run(tasks, order);
      CHECK(answer.ending.how == how);
      CHECK(answer.ending.number == number);
      CHECK(answer.bytes.empty());
      CHECK(text(run(tasks, "well")) == "did well");
    };
    CHECK(text(run(tasks, "first")) == "did first");
    ends("crash", How::Signalled, SIGSEGV);
    ends("exit", How::Exited, 7);
    ends("spin", How::Signalled, SIGXCPU);
    ends("talk", How::Signalled, SIGXFSZ);
    TaskLimits short_of_time = kLimits;
    short_of_time.time = std::chrono::seconds(1);
    SealedTasks hurried(kWord, short_of_time);
    CHECK(run(hurried, "sleep").ending.how == How::OutOfTime);
  }

  TEST_CASE("memory is limited, and the environment is not the task's business") {
    SealedTasks tasks(kWord, kLimits);
    ::setenv("HOME", "/", 0);
    CHECK(text(run(tasks, "eat")) == "too much");
    CHECK(text(run(tasks, "home")) == "none");
  }

  TEST_CASE("an answer may be empty, and two workers are two") {
    SealedTasks one(kWord, kLimits);
    SealedTasks other(kWord, kLimits);
    CHECK(text(run(one, "a")) == "did a");
    CHECK(text(run(other, "b")) == "did b");
    CHECK(text(run(one, "")) == "did ");
  }
}
