// Where the time of a run goes: the wall time of named phases, summed over the process.
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace assay {

/// Adds the time of its scope to a phase. One inside another counts in both.
class PhaseTimer {
 public:
  explicit PhaseTimer(std::string phase) : phase_(std::move(phase)) {}
  ~PhaseTimer();
  PhaseTimer(const PhaseTimer&) = delete;
  PhaseTimer& operator=(const PhaseTimer&) = delete;

 private:
  std::string phase_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Phases in the order they first ended, with seconds.
std::vector<std::pair<std::string, double>> phase_seconds();

}  // namespace assay
