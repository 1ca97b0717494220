// Device memory that tells on its users: poisoned before a run, guard bands around it, both verified on
// request.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "gpu/cuda_check.h"

namespace assay::gpu {

inline constexpr std::size_t kGuardBytes = 1024;  // also keeps the payload aligned for bulk copies
inline constexpr int kGuardByte = 0x5a;
inline constexpr int kPoisonByte = 0xff;  // NaN as bf16, float and double; -1 as an integer

/// Elements of a buffer that stays empty unless it is wanted.
inline std::int64_t elements_if(bool wanted, std::int64_t rows, std::int64_t columns) {
  return wanted ? rows * columns : 0;
}

/// Owns `count` elements of T on the device, poisoned, between two guard bands.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(std::string name, std::int64_t count) : name_(std::move(name)), count_(count) {
    ASSAY_CUDA(cudaMalloc(&base_, payload_bytes() + 2 * kGuardBytes));
    ASSAY_CUDA(cudaMemset(base_, kGuardByte, payload_bytes() + 2 * kGuardBytes));
    poison();
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cudaFree(base_); }

  T* data() const { return base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + kGuardBytes); }
  std::int64_t size() const { return count_; }
  std::size_t bytes() const { return static_cast<std::size_t>(count_) * sizeof(T); }

  void poison() {
    if (count_ > 0) ASSAY_CUDA(cudaMemset(data(), kPoisonByte, bytes()));
  }

  void upload(const void* host, std::int64_t first, std::int64_t count) {
    ASSAY_CHECK(first >= 0 && count >= 0 && first + count <= count_, "expected an upload inside the buffer");
    if (count > 0)
      ASSAY_CUDA(cudaMemcpy(data() + first, host, static_cast<std::size_t>(count) * sizeof(T),
                            cudaMemcpyHostToDevice));
  }

  void download(void* host) const {
    if (count_ > 0) ASSAY_CUDA(cudaMemcpy(host, data(), bytes(), cudaMemcpyDeviceToHost));
  }

  /// Throws CandidateError naming the buffer when a byte of a guard band has changed. Synchronises.
  void verify_guards() const {
    if (base_ == nullptr) return;
    verify_guard("before ", 0, kGuardBytes);
    verify_guard("behind ", kGuardBytes + bytes(), payload_bytes() - bytes() + kGuardBytes);
  }

  /// The same of `size` bytes of the payload from `offset` on, which a user of a part of it keeps as a guard.
  void verify_within(std::size_t offset, std::size_t size) const {
    verify_guard("within ", kGuardBytes + offset, size);
  }

 private:
  void verify_guard(const char* side, std::size_t offset, std::size_t size) const {
    std::vector<unsigned char> guard(size);
    ASSAY_CUDA(cudaMemcpy(guard.data(), base_ + offset, size, cudaMemcpyDeviceToHost));
    for (std::size_t i = 0; i < size; ++i)
      if (guard[i] != kGuardByte)
        throw CandidateError("expected the guard band " + std::string(side) + name_ +
                             " to be untouched, found byte " + std::to_string(i) + " of it overwritten");
  }

  // The rear guard starts at the first byte behind the payload, wherever that is.
  std::size_t payload_bytes() const { return (bytes() + 255) / 256 * 256; }
  void swap(Buffer& other) {
    std::swap(name_, other.name_);
    std::swap(base_, other.base_);
    std::swap(count_, other.count_);
  }

  std::string name_;
  unsigned char* base_ = nullptr;
  std::int64_t count_ = 0;
};

}  // namespace assay::gpu
