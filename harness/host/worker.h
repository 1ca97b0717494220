// Work done beside the caller's, one piece after the other.
#pragma once

#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <queue>
#include <thread>
#include <type_traits>
#include <utility>

namespace assay {

/// A thread of its own, which keeps its OpenMP team from one piece of work to the next: a new thread would
/// start a new team.
class Worker {
 public:
  /// `team`: how many threads its parallel regions have. Throws std::system_error where there is no thread to
  /// be had.
  explicit Worker(int team);
  /// After the last piece of work.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// What it gives, or throws, comes with the future. References in `work` must live until then.
  template <class Work>
  std::future<std::invoke_result_t<Work&>> start(Work work) {
    // Shared, for a std::function must be copyable.
    const auto task = std::make_shared<std::packaged_task<std::invoke_result_t<Work&>()>>(std::move(work));
    auto result = task->get_future();
    {
      const std::scoped_lock lock(mutex_);
      waiting_.emplace([task] { (*task)(); });
    }
    changed_.notify_one();
    return result;
  }

 private:
  void run(int team);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::queue<std::function<void()>> waiting_;  // an empty function ends it
  std::thread thread_;
};

}  // namespace assay
