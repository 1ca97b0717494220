// Replays of captured launch sequences, timed in turns, each after the L2 was filled with foreign clean
// lines.
#pragma once

#include <functional>
#include <vector>

#include "gpu/buffer.h"

namespace assay::gpu {

/// A captured launch sequence.
class Graph {
 public:
  Graph(cudaStream_t stream, const std::function<void()>& work);
  Graph(Graph&& other) noexcept;
  Graph& operator=(Graph&&) = delete;
  ~Graph();
  void launch(cudaStream_t stream) const;

 private:
  cudaGraphExec_t replay_ = nullptr;
};

/// What the board reported at the end of a round of replays.
struct BoardSample {
  int sm_clock_mhz = 0;
  int power_watts = 0;
};

struct Replays {
  std::vector<std::vector<double>> microseconds;  // per graph, in the order of the rounds
  std::vector<BoardSample> board;  // per round; empty where the driver's management library is not found
};

/// `repetitions` rounds after three that do not count; every round replays every graph once, so that a change
/// of the card's clock meets all of them.
Replays time_replays(const std::vector<Graph>& graphs, int repetitions, cudaStream_t stream);

}  // namespace assay::gpu
