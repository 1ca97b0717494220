// Checks CUDA calls one by one: a failure is one sentence with the call and the driver's own text.
#pragma once

#include <string>

#include <cuda_runtime.h>

#include "harness/contract/error.h"

namespace assay::gpu {

inline void check_cuda(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  throw InputError(std::string("expected ") + call + " to succeed, found \"" + cudaGetErrorString(status) +
                   "\" (" + file + ":" + std::to_string(line) + ")");
}

inline void check_that(bool holds, const char* sentence, const char* file, int line) {
  if (!holds) throw InputError(std::string(sentence) + " (" + file + ":" + std::to_string(line) + ")");
}

}  // namespace assay::gpu

/// For calls that return cudaError_t.
#define ASSAY_CUDA(call) ::assay::gpu::check_cuda((call), #call, __FILE__, __LINE__)
/// For what a launcher requires of its caller; unlike assert it stays in release builds.
#define ASSAY_CHECK(condition, sentence) ::assay::gpu::check_that((condition), sentence, __FILE__, __LINE__)
