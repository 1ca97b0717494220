#include "harness/host/worker.h"

#include <omp.h>

namespace assay {

Worker::Worker(int team) : thread_([this, team] { run(team); }) {}

Worker::~Worker() {
  {
    const std::scoped_lock lock(mutex_);
    waiting_.emplace();
  }
  changed_.notify_one();
  thread_.join();
}

void Worker::run(int team) {
  omp_set_num_threads(team);
  while (true) {
    std::function<void()> work;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return !waiting_.empty(); });
      work = std::move(waiting_.front());
      waiting_.pop();
    }
    if (!work) return;
    work();
  }
}

}  // namespace assay
