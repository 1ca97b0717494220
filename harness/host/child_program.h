// This program started anew as a child that may crash, hang or end as it likes.
#pragma once

#include <sys/types.h>
#include <span>
#include <string>
#include <vector>

namespace assay {

/// How a child ended, or that it did not answer in time.
struct ChildEnding {
  enum class How { Exited, Signalled, OutOfTime } how = How::Exited;
  int number = 0;  // exit code or signal
};

/// What a child finds when it starts.
enum class ChildSurroundings {
  Ours,  // the environment, and stderr as stdout as well
  Bare,  // streams that lead nowhere; of the environment only where shared libraries are found
};

/// Started by exec, never by fork alone: threads, CUDA and OpenMP do not survive that. The child has a
/// process group of its own and no stdin, and learns by its socket when this process has gone.
class ChildProgram {
 public:
  /// `words` are the command line behind the program's name, behind which the number of the child's socket is
  /// appended. Throws InputError when nothing can be started.
  explicit ChildProgram(std::vector<std::string> words,
                        ChildSurroundings surroundings = ChildSurroundings::Ours);
  /// Lets the child come to its own end for a moment, then ends it and what it started.
  ~ChildProgram();
  ChildProgram(const ChildProgram&) = delete;
  ChildProgram& operator=(const ChildProgram&) = delete;

  /// False when the child has gone.
  bool send(const void* message, std::size_t bytes, std::span<const int> descriptors = {});
  /// Waits for a message of exactly `bytes`. False when the child ended or `seconds` passed: then it is ended
  /// and `ending()` says how.
  bool receive(void* message, std::size_t bytes, double seconds);
  const ChildEnding& ending() const { return ending_; }

  /// Stops and continues every thread of the child.
  void pause();
  void resume();

 private:
  bool ended();
  void kill_group();

  pid_t pid_ = -1;
  int socket_ = -1;
  bool paused_ = false;
  ChildEnding ending_;
};

/// The child's side: ties its life to its parent's, and keeps the socket from programs that it starts.
void live_as_child(int socket);
/// False when the parent has gone. The second form also receives descriptors, -1 where none came.
bool send_to_parent(int socket, const void* message, std::size_t bytes);
bool receive_from_parent(int socket, void* message, std::size_t bytes, std::span<int> descriptors);

}  // namespace assay
