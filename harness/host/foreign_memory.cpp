#include "harness/host/foreign_memory.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#include "harness/contract/error.h"

namespace assay {
namespace {

constexpr std::size_t kGuardBytes = 4096;
constexpr std::align_val_t kAlignment{256};

struct Freed {
  void operator()(unsigned char* base) const { ::operator delete(base, kAlignment); }
};

struct Room {
  std::string name;
  std::unique_ptr<unsigned char, Freed> base;
  std::size_t bytes;
};

class HostMemory final : public ForeignMemory {
 public:
  void* room(const std::string& name, std::size_t bytes) override {
    auto* base = static_cast<unsigned char*>(::operator new(bytes + 2 * kGuardBytes, kAlignment));
    std::memset(base, kGuard, bytes + 2 * kGuardBytes);
    std::memset(base + kGuardBytes, kPoison, bytes);
    rooms_.push_back({name, std::unique_ptr<unsigned char, Freed>(base), bytes});
    return base + kGuardBytes;
  }
  void write(void* room, const void* from, std::size_t bytes) override { copy(room, from, bytes); }
  void read(void* to, const void* room, std::size_t bytes) override { copy(to, room, bytes); }
  void poison(void* room, std::size_t bytes) override { std::memset(room, kPoison, bytes); }
  void finish() override {}
  void verify_guards() const override {
    for (const Room& room : rooms_) {
      verify_guard(room, "before", room.base.get());
      verify_guard(room, "behind", room.base.get() + kGuardBytes + room.bytes);
    }
  }

 private:
  static void copy(void* to, const void* from, std::size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  static void verify_guard(const Room& room, const char* side, const unsigned char* guard) {
    const auto* changed =
        std::find_if(guard, guard + kGuardBytes, [](unsigned char byte) { return byte != kGuard; });
    if (changed != guard + kGuardBytes)
      throw CandidateError("expected the memory " + std::string(side) + " " + room.name +
                           " to be left alone, found byte " + std::to_string(changed - guard) + " " + side +
                           " it overwritten");
  }

  std::vector<Room> rooms_;
};

}  // namespace

std::unique_ptr<ForeignMemory> host_foreign_memory() { return std::make_unique<HostMemory>(); }

}  // namespace assay
