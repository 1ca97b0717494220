#include "gpu/device_guards.h"

#include <vector>

#include "gpu/device_problem.h"
#include "gpu/pipeline.h"

namespace assay {
namespace gpu {
namespace {

static_assert(ForeignMemory::kPoison == kPoisonByte);

class DeviceMemory final : public ForeignMemory {
 public:
  void* room(const std::string& name, std::size_t bytes) override {
    rooms_.emplace_back(name, static_cast<std::int64_t>(bytes));
    return rooms_.back().data();
  }
  void write(void* room, const void* from, std::size_t bytes) override {
    ASSAY_CUDA(cudaMemcpy(room, from, bytes, cudaMemcpyHostToDevice));
  }
  void read(void* to, const void* room, std::size_t bytes) override {
    ASSAY_CUDA(cudaMemcpy(to, room, bytes, cudaMemcpyDeviceToHost));
  }
  void poison(void* room, std::size_t bytes) override {
    ASSAY_CUDA(cudaMemset(room, kPoison, bytes));
    ASSAY_CUDA(cudaDeviceSynchronize());  // before any stream of the plugin's
  }
  void finish() override {
    const cudaError_t launched = cudaGetLastError(), ran = cudaDeviceSynchronize();
    for (const cudaError_t status : {launched, ran})
      if (status != cudaSuccess)
        throw CandidateError(std::string("expected the device to have no error after the run, found \"") +
                             cudaGetErrorString(status) + "\"");
  }
  void verify_guards() const override {
    for (const auto& room : rooms_) room.verify_guards();
  }

 private:
  std::vector<Buffer<unsigned char>> rooms_;
};

}  // namespace
}  // namespace gpu

std::unique_ptr<ForeignMemory> device_foreign_memory() {
  if (const auto reason = gpu_unavailable()) throw InputError(*reason);
  return std::make_unique<gpu::DeviceMemory>();
}

Candidate candidate_of_device(const std::string& name) {
  if (const auto reason = gpu_unavailable()) throw InputError(*reason);
  return gpu::describe_candidate(name);
}

}  // namespace assay
