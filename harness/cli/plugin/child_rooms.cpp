#include "harness/cli/plugin/child_rooms.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>
#include <span>

#include "harness/cli/plugin/room_images.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

// Address space, no memory.
constexpr std::size_t kLargestGap = std::size_t{1} << 30;
constexpr std::size_t kLeastGap = std::size_t{1} << 15;

std::size_t size(std::int64_t bytes) { return static_cast<std::size_t>(bytes); }

}  // namespace

ChildRooms::ChildRooms(const wire::Request& request, int problem, int results,
                       std::unique_ptr<ForeignMemory> device)
    : device_(std::move(device)) {
  // Under a limit of address space smaller gaps will do.
  for (gap_ = kLargestGap; reserved_ == nullptr; gap_ /= 32) {
    reserved_bytes_ = gap_;
    for (int i = 0; i < request.rooms; ++i) reserved_bytes_ += size(request.room[i].image) + gap_;
    void* reserved =
        ::mmap(nullptr, reserved_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved != MAP_FAILED) {
      reserved_ = static_cast<std::byte*>(reserved);
      next_ = gap_;
      break;
    }
    if (gap_ <= kLeastGap)
      throw InputError(fmt::format("expected {} bytes of address space, found: {}", reserved_bytes_,
                                   std::strerror(errno)));
  }
  for (int i = 0; i < request.rooms; ++i) {
    const wire::Room& room = request.room[i];
    placed_.push_back({room, map(room, wire::read_only(room.role) ? problem : results), nullptr});
    if (device_) placed_.back().device = static_cast<std::byte*>(device_->room(size(room.image)));
  }
  ::close(problem);
  ::close(results);
}

ChildRooms::~ChildRooms() {
  if (reserved_ != nullptr) ::munmap(reserved_, reserved_bytes_);
}

std::byte* ChildRooms::map(const wire::Room& room, int file) {
  const int access = wire::read_only(room.role) ? PROT_READ : PROT_READ | PROT_WRITE;
  void* image = ::mmap(reserved_ + next_, size(room.image), access, MAP_SHARED | MAP_FIXED, file, room.at);
  if (image == MAP_FAILED)
    throw InputError(fmt::format("expected to map {} bytes, found: {}", room.image, std::strerror(errno)));
  next_ += size(room.image) + gap_;
  return static_cast<std::byte*>(image);
}

const ChildRooms::Placed* ChildRooms::find(Field field, wire::Role role) const {
  for (const Placed& one : placed_)
    if (one.room.field == static_cast<std::int32_t>(field) && one.room.role == role) return &one;
  return nullptr;
}

void* ChildRooms::payload(Field field, wire::Role role) const {
  const Placed* one = find(field, role);
  if (one == nullptr) return nullptr;
  return (one->device != nullptr ? one->device : one->image) + one->room.guard;
}

std::optional<DType> ChildRooms::gradient_dtype(Field field) const {
  const Placed* one = find(field, wire::Role::Gradient);
  if (one == nullptr) return std::nullopt;
  return static_cast<DType>(one->room.dtype);
}

void ChildRooms::write(const Placed& one) {
  if (device_) device_->write(one.device, one.image, size(one.room.image));
}

void ChildRooms::send_problem() {
  for (const Placed& one : placed_)
    if (wire::read_only(one.room.role)) write(one);
}

void ChildRooms::send(wire::Function before) {
  const auto changes = [&](const wire::Room& room) {
    if (before == wire::Function::Backward) return room.role == wire::Role::Gradient;
    return !wire::read_only(room.role) || row(static_cast<Field>(room.field)).group == Group::Inputs;
  };
  for (const Placed& one : placed_)
    if (changes(one.room)) write(one);
}

void ChildRooms::fetch() {
  if (!device_) return;
  device_->finish();
  for (const Placed& one : placed_)
    if (!wire::read_only(one.room.role)) device_->read(one.image, one.device, size(one.room.image));
}

void ChildRooms::fingerprints(wire::Reply& reply) const {
  std::vector<std::byte> fetched;
  for (const Placed& one : placed_) {
    if (!wire::read_only(one.room.role)) continue;
    const std::byte* image = one.image;
    if (device_) {
      fetched.resize(size(one.room.image));
      device_->read(fetched.data(), one.device, fetched.size());
      image = fetched.data();
    }
    const auto index = size(one.room.field);
    reply.payloads[index] = payload_fingerprint(image, one.room);
    reply.guards[index] = guards_fingerprint(image, one.room);
  }
}

void ChildRooms::locate(const void* address, wire::Reply& fault) const {
  const auto* at = static_cast<const std::byte*>(address);
  if (at < reserved_ || at >= reserved_ + reserved_bytes_) return;
  fault.distance = static_cast<std::int64_t>(reserved_bytes_);
  for (const Placed& one : placed_) {
    const std::byte* begin = one.image + one.room.guard;
    const std::byte* end = begin + one.room.payload;
    if (at >= begin && at < end) {  // readable: a write to an input
      fault.touched = wire::Touched::Input;
      fault.field = one.room.field;
      fault.role = one.room.role;
      fault.distance = at - begin;
      return;
    }
    const auto distance = at < begin ? begin - at : at - end;
    if (distance >= fault.distance) continue;
    fault.touched = at < begin ? wire::Touched::Before : wire::Touched::Behind;
    fault.field = one.room.field;
    fault.role = one.room.role;
    fault.distance = distance;
  }
}

}  // namespace assay::cli
