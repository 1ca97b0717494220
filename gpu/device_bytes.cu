#include "gpu/device_bytes.h"

#include "gpu/cuda_check.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 1056;

__global__ void count_kernel(const std::uint16_t* a, const std::uint16_t* b, std::int64_t words,
                             unsigned long long* differing) {
  unsigned mine = 0;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < words;
       i += static_cast<std::int64_t>(kBlocks) * kThreads)
    mine += a[i] != b[i];
  if (mine != 0) atomicAdd(differing, static_cast<unsigned long long>(mine));
}

}  // namespace

std::vector<unsigned char> download(const std::vector<DeviceBytes>& results) {
  std::vector<unsigned char> bytes;
  for (const auto& result : results) {
    const std::size_t before = bytes.size();
    bytes.resize(before + result.size);
    if (result.size > 0)
      ASSAY_CUDA(cudaMemcpy(bytes.data() + before, result.data, result.size, cudaMemcpyDeviceToHost));
  }
  return bytes;
}

std::int64_t words_in(const std::vector<DeviceBytes>& results) {
  std::int64_t words = 0;
  for (const auto& result : results) words += static_cast<std::int64_t>(result.size / 2);
  return words;
}

std::int64_t count_words_that_differ(const std::vector<DeviceBytes>& a, const std::vector<DeviceBytes>& b) {
  ASSAY_CHECK(a.size() == b.size(), "expected as many results on both sides");
  const Buffer<unsigned long long> differing("words that differ", 1);
  ASSAY_CUDA(cudaMemset(differing.data(), 0, differing.bytes()));
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSAY_CHECK(a[i].size == b[i].size && a[i].size % 2 == 0, "expected results of equal sizes, whole words");
    if (a[i].size == 0) continue;
    count_kernel<<<kBlocks, kThreads>>>(static_cast<const std::uint16_t*>(a[i].data),
                                        static_cast<const std::uint16_t*>(b[i].data),
                                        static_cast<std::int64_t>(a[i].size / 2), differing.data());
    ASSAY_CUDA(cudaGetLastError());
  }
  unsigned long long count = 0;
  differing.download(&count);
  return static_cast<std::int64_t>(count);
}

}  // namespace assay::gpu
