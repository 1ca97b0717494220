// Times of the fused layer and its stages, beside cuBLAS and the roofline. Only meaningful for what was
// verified before.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gpu/pipeline.h"

namespace assay {

/// One contender: microseconds of CUDA-graph replays, each after the L2 was filled with foreign, clean lines.
struct GpuTiming {
  std::string what;
  double median_us = 0.0;
  double fastest_us = 0.0;
  double slowest_us = 0.0;
  double flops = 0.0;  // useful floating-point operations, 0 where the stage has no product
  double limit_us =
      0.0;  // the larger of operations and least bytes over the rates below, 0 where none is given
  double tflops() const { return flops / median_us * 1e-6; }
};

struct GpuBenchmark {
  std::string device;
  std::string variant;  // of the grouped products
  std::int64_t tokens = 0;
  std::int64_t experts_hit = 0;
  std::int64_t fewest_rows = 0;  // of an expert
  std::int64_t most_rows = 0;
  int sm_clock_mhz = 0;  // median over the rounds, read right after each; 0 where the driver does not say
  int power_watts = 0;   // likewise
  std::string compared_with;        // the variant that ran beside at this size before anything was timed
  std::int64_t compared_words = 0;  // of 16 bits of everything both left behind, and none differs
  std::string left_out;             // what is not timed, and why; empty where all is
  std::vector<GpuTiming> timings;   // the first is the whole layer, router included
};

/// Rates of an NVIDIA H200, measured: a large bf16 product of random data, and a large copy (bytes read and
/// written).
inline constexpr double kRooflineFlops = 790e12;
inline constexpr double kRooflineBytes = 4.3e12;

/// Times the layer for the first n tokens of `problem`, for every n of `tokens`; contenders of one n are
/// interleaved. `backward`: the backward pass, too. Before it is timed, a size's every result is
/// compared with the other variant's, bit by bit. Throws InputError without a device, where `gpu_unsupported`
/// has a reason or where a bit differs.
std::vector<GpuBenchmark> bench_gpu_fused(const Problem& problem, const std::vector<std::int64_t>& tokens,
                                          const GpuOptions& options, bool backward = false);

}  // namespace assay
