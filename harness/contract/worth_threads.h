// When a loop is worth a team of threads.
#pragma once

#include <cstdint>

namespace assay {

/// Waking a team takes microseconds on an idle machine, and milliseconds where others keep its cores: loops
/// of fewer elementary operations run on the thread that is here. For the `if` clause of parallel regions.
inline constexpr std::int64_t kOperationsWorthThreads = 1 << 16;

template <class Integer>
constexpr bool worth_threads(Integer operations) {
  return static_cast<std::int64_t>(operations) > kOperationsWorthThreads;
}

}  // namespace assay
