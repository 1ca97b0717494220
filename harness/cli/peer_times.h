// Other projects' layers, timed on this card beside ours: what ran here, and what was measured elsewhere.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gpu/bench.h"
#include "harness/contract/problem.h"

namespace assay::cli {

/// One measurement, or why there is none.
struct PeerTime {
  std::string peer;
  std::string version;
  std::string pass;         // "forward", "forward and backward"; empty where none of them ran
  std::int64_t tokens = 0;  // 0 where none ran
  std::string launched;     // "CUDA graph", "by Python"
  double median_us = 0.0;
  double fastest_us = 0.0;
  double slowest_us = 0.0;
  std::string why;  // it was not measured; empty where it was
};

/// Runs `python3 -m assay_golden.peer_times` (or $ASSAY_PYTHON): HuggingFace's grouped_mm, Unsloth, Liger,
/// ScatterMoE and SonicMoE, those that can be imported, on the problem's first tokens and its router; the
/// experts' weights are drawn anew from their distribution. Each has a process of its own and at most
/// `seconds`. Throws InputError where Python does not run.
std::vector<PeerTime> time_peers(const Problem& problem, const std::vector<std::int64_t>& tokens,
                                 bool backward, double seconds);

/// A figure that was not measured in this run.
struct QuotedTime {
  std::string_view who;
  std::string_view pass;
  std::int64_t tokens;
  double fastest_us;
  double slowest_us;
};

/// Those of this layer and number of tokens, measured on another NVIDIA H200 (kQuotedFrom).
std::vector<QuotedTime> quoted_times(const MoeConfig& config, std::int64_t tokens, bool backward);
inline constexpr std::string_view kQuotedFrom =
    "another NVIDIA H200, 2026-11-29, random routing, CUDA graphs, L2 flushed";

/// A line for each peer at the tokens of `ours`: its time, and how many times ours it is; or why there is
/// none. Then the quoted ones, marked as such. Passes without a time of ours are left out.
std::string peer_lines(const std::vector<PeerTime>& peers, const std::vector<QuotedTime>& quoted,
                       const GpuBenchmark& ours);

/// What our benchmark has of a pass: "forward" is its layer. 0 where it did not run.
double our_median_us(const GpuBenchmark& ours, std::string_view pass);

}  // namespace assay::cli
