// Work on a stranger's bytes, each piece in a process of its own that may crash, hang or be taken over.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "harness/host/child_program.h"

namespace assay {

/// What one task may use. `memory` is beside what the process held when it began.
struct TaskLimits {
  std::uint64_t memory = 0;  // bytes
  std::uint64_t answer = 0;  // bytes
  std::chrono::seconds processor_time{};
  std::chrono::seconds time{};
};

/// What a task wrote, and how it ended.
struct TaskAnswer {
  std::vector<std::byte> bytes;
  ChildEnding ending;
  bool complete() const { return ending.how == ChildEnding::How::Exited && ending.number == 0; }
};

/// This program started once as a child, which answers every task in a copy of itself: a file that harms its
/// process harms no other file's, and only the first pays for the start.
class SealedTasks {
 public:
  /// `word` is the command line by which the child knows what to do: it calls serve_sealed_tasks.
  SealedTasks(std::string word, const TaskLimits& limits) : word_(std::move(word)), limits_(limits) {}

  /// Runs the task on the file that is opened as `descriptor`. Safe from any thread. Throws InputError when
  /// no process, memory or descriptor is to be had; how the task fared stands in the answer.
  TaskAnswer run(int descriptor);

 private:
  std::string word_;
  TaskLimits limits_;
  std::mutex one_at_a_time_;
  std::unique_ptr<ChildProgram> child_;
};

/// The child's side: answers until its parent has gone. `task` gets the file's descriptor and returns the
/// answer; it may end its process as it likes.
[[noreturn]] void serve_sealed_tasks(int socket, std::string (*task)(int descriptor));

}  // namespace assay
