#include "harness/host/worker.h"

#include <stdexcept>
#include <vector>

#include <doctest/doctest.h>
#include <omp.h>

using namespace assay;

TEST_SUITE("worker") {
  TEST_CASE("work is done in order, on one thread beside the caller's, with a team as large as asked for") {
    std::vector<int> done;
    std::vector<std::thread::id> on;
    std::vector<std::future<int>> results;
    {
      Worker worker(3);
      for (int i = 0; i < 100; ++i)
        results.push_back(worker.start([&done, &on, i] {
          done.push_back(i);
          on.push_back(std::this_thread::get_id());
          return omp_get_max_threads();
        }));
    }  // ends after the last of them
    REQUIRE(done.size() == 100);
    for (int i = 0; i < 100; ++i) {
      CHECK(done[static_cast<std::size_t>(i)] == i);
      CHECK(on[static_cast<std::size_t>(i)] == on.front());
      CHECK(results[static_cast<std::size_t>(i)].get() == 3);
    }
    CHECK(on.front() != std::this_thread::get_id());
  }

  TEST_CASE("what work throws comes with its result, and further work is done") {
    Worker worker(1);
    auto fails = worker.start([]() -> int { throw std::runtime_error("no"); });
    auto gives = worker.start([held = std::make_unique<int>(7)] { return *held; });
    CHECK_THROWS_WITH_AS(fails.get(), "no", std::runtime_error);
    CHECK(gives.get() == 7);
  }
}
