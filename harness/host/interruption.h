// Last words of a program that is interrupted or crashes.
#pragma once

#include <functional>
#include <thread>

namespace assay {

/// While one lives, SIGINT, SIGTERM, SIGHUP and a crash of this process (SIGSEGV, SIGBUS, SIGFPE, SIGILL,
/// SIGABRT) call `last_words` once, on a thread of its own that is healthy whatever the others do; then the
/// signal ends the program as it would have. A second one of the first three ends it at once. Where no thread
/// is to be had signals end the program as they always do. One at a time.
class Interruption {
 public:
  explicit Interruption(std::function<void(int signal)> last_words);
  ~Interruption();
  Interruption(const Interruption&) = delete;
  Interruption& operator=(const Interruption&) = delete;

 private:
  std::thread watcher_;
};

/// "SIGINT"
const char* signal_name(int signal);

}  // namespace assay
