// Device memory of the engine that is kept from one use to the next: taking and giving back a large buffer
// costs as much as an expert's product.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "gpu/buffer.h"

namespace assay::gpu {

/// Elements of such memory, until their name is taken again.
template <class T>
class KeptElements {
 public:
  KeptElements(std::shared_ptr<Buffer<unsigned char>> room, std::int64_t count)
      : room_(std::move(room)), count_(count) {}
  T* data() const { return reinterpret_cast<T*>(room_->data()); }
  std::int64_t size() const { return count_; }
  std::size_t bytes() const { return static_cast<std::size_t>(count_) * sizeof(T); }
  /// As Buffer's. Synchronises.
  void verify_guards() const {
    room_->verify_guards();
    room_->verify_within(bytes(), kGuardBytes);
  }

 private:
  std::shared_ptr<Buffer<unsigned char>> room_;
  std::int64_t count_;
};

class KeptMemory {
 public:
  /// `count` elements, poisoned on `stream` and between guard bands.
  template <class T>
  KeptElements<T> take(const std::string& name, std::int64_t count, cudaStream_t stream) {
    const auto bytes = count * static_cast<std::int64_t>(sizeof(T));
    const auto needed = bytes + static_cast<std::int64_t>(kGuardBytes);
    auto room = rooms_[name];
    if (!room || room->size() < needed) {
      rooms_[name] = room = nullptr;
      room =
          std::make_shared<Buffer<unsigned char>>(name, needed <= kMostKept ? needed + needed / 4 : needed);
      ASSAY_CUDA(cudaDeviceSynchronize());  // guards and poison are written on the default stream
      if (needed <= kMostKept) rooms_[name] = room;
    }
    ASSAY_CUDA(cudaMemsetAsync(room->data(), kPoisonByte, static_cast<std::size_t>(bytes), stream));
    ASSAY_CUDA(cudaMemsetAsync(room->data() + bytes, kGuardByte, kGuardBytes, stream));
    return {std::move(room), count};
  }

 private:
  static constexpr std::int64_t kMostKept = std::int64_t{1} << 28;  // bytes of one name
  std::map<std::string, std::shared_ptr<Buffer<unsigned char>>> rooms_;
};

}  // namespace assay::gpu
