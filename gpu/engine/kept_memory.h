// Device memory of the engine that is kept from one use to the next: taking and giving back a large buffer
// costs as much as an expert's product.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

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
    const auto needed = needed_for<T>(count);
    Room room = rooms_[name];
    if (!room || room->size() < needed) {
      rooms_[name] = room = nullptr;
      room = new_room(name, needed <= kMostKept ? needed + needed / 4 : needed);
      if (needed <= kMostKept) rooms_[name] = room;
    }
    return prepared<T>(std::move(room), count, stream);
  }

  /// The same as long as the result or a copy of it lives, others may be taken under the name; nothing where
  /// that would leave the device with little memory.
  template <class T>
  std::optional<KeptElements<T>> take_apart(const std::string& name, std::int64_t count,
                                            cudaStream_t stream) {
    const auto needed = needed_for<T>(count);
    for (const Room& room : apart_)
      if (room.use_count() == 1 && room->size() >= needed) return prepared<T>(room, count, stream);
    std::erase_if(apart_, [](const Room& room) { return room.use_count() == 1; });  // too small
    std::size_t free = 0;
    std::size_t total = 0;
    ASSAY_CUDA(cudaMemGetInfo(&free, &total));
    if (free / 4 < static_cast<std::size_t>(needed)) return std::nullopt;
    apart_.push_back(new_room(name, needed));
    return prepared<T>(apart_.back(), count, stream);
  }

 private:
  using Room = std::shared_ptr<Buffer<unsigned char>>;
  static constexpr std::int64_t kMostKept = std::int64_t{1} << 28;  // bytes of one name

  template <class T>
  static std::int64_t needed_for(std::int64_t count) {
    return count * static_cast<std::int64_t>(sizeof(T)) + static_cast<std::int64_t>(kGuardBytes);
  }
  static Room new_room(const std::string& name, std::int64_t bytes) {
    auto room = std::make_shared<Buffer<unsigned char>>(name, bytes);
    ASSAY_CUDA(cudaDeviceSynchronize());  // guards and poison are written on the default stream
    return room;
  }
  template <class T>
  static KeptElements<T> prepared(Room room, std::int64_t count, cudaStream_t stream) {
    const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
    ASSAY_CUDA(cudaMemsetAsync(room->data(), kPoisonByte, bytes, stream));
    ASSAY_CUDA(cudaMemsetAsync(room->data() + bytes, kGuardByte, kGuardBytes, stream));
    return {std::move(room), count};
  }

  std::map<std::string, Room> rooms_;
  std::vector<Room> apart_;
};

}  // namespace assay::gpu
