#include "harness/cli/environment.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <mutex>

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <omp.h>
#include <sys/resource.h>
#include <unistd.h>

#include "build_facts.h"
#include "harness/contract/counted_words.h"
#include "reference_cpu/product/product_kernels.h"
#include "revision.h"

namespace assay::cli {
namespace {

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

}  // namespace

std::string version() { return fmt::format("assay {} ({})", ASSAY_VERSION, ASSAY_REVISION); }

std::vector<std::pair<std::string, std::string>> environment() {
  return {
      {"assay", fmt::format("{}, revision {}", ASSAY_VERSION, ASSAY_REVISION)},
      {"compiler", fmt::format("{} {}", "g++", __VERSION__)},
      {"cpu", fmt::format("{}, {}", cpu_model(), counted(omp_get_max_threads(), "thread"))},
      {"vector kernels", product_kernels().name},
      {"fmt", fmt::format("{}.{}.{}", FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100)},
  };
}

std::string utc_now() { return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr))); }

std::int64_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} * 1024;
}

bool shows_progress() {
  static const bool shows =
      isatty(STDERR_FILENO) != 0 && std::getenv("CI") == nullptr &&
      std::string_view(std::getenv("TERM") == nullptr ? "dumb" : std::getenv("TERM")) != "dumb";
  return shows;
}

void say(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

void progress(const std::string& line) {
  if (shows_progress()) return say(fmt::format("\r\x1b[K{}", line));
  using Clock = std::chrono::steady_clock;
  constexpr auto kSparse = std::chrono::seconds(30);
  static std::mutex one_at_a_time;
  static auto last = Clock::now();
  const std::scoped_lock lock(one_at_a_time);
  if (Clock::now() - last < kSparse) return;
  last = Clock::now();
  say(fmt::format("assay: {}\n", line));
}

void progress_done() {
  if (shows_progress()) say("\r\x1b[K");
}

}  // namespace assay::cli
