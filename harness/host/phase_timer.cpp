#include "harness/host/phase_timer.h"

#include <algorithm>
#include <mutex>

namespace assay {
namespace {

std::mutex mutex;

std::vector<std::pair<std::string, double>>& phases() {
  static std::vector<std::pair<std::string, double>> all;
  return all;
}

}  // namespace

PhaseTimer::~PhaseTimer() {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const std::scoped_lock lock(mutex);
  const auto found = std::ranges::find(phases(), phase_, &std::pair<std::string, double>::first);
  if (found != phases().end())
    found->second += seconds;
  else
    phases().emplace_back(std::move(phase_), seconds);
}

std::vector<std::pair<std::string, double>> phase_seconds() {
  const std::scoped_lock lock(mutex);
  return phases();
}

}  // namespace assay
