#include "harness/cli/plugin/room_images.h"

#include <fmt/format.h>
#include <algorithm>
#include <cstring>
#include <span>

#include "harness/contract/digits.h"
#include "harness/host/fingerprint.h"

namespace assay::cli {
namespace {

constexpr int kPoison = 0xff;
constexpr std::byte kGuard{0x5a};
constexpr std::int64_t kPage = 4096;

std::span<const std::byte> front(const std::byte* image, const wire::Room& room) {
  return {image, static_cast<std::size_t>(room.guard)};
}

std::span<const std::byte> rear(const std::byte* image, const wire::Room& room) {
  const std::int64_t before = room.guard + room.payload;
  return {image + before, static_cast<std::size_t>(room.image - before)};
}

/// The sentence for one band: how far from the field the nearest changed byte lies, counted from 0 behind it
/// and from 1 before it.
std::optional<std::string> broken(std::span<const std::byte> band, const char* side, std::string_view field,
                                  bool behind) {
  const auto changed = [](std::byte byte) { return byte != kGuard; };
  const auto bytes = std::ranges::count_if(band, changed);
  if (bytes == 0) return std::nullopt;
  const auto nearest = behind ? std::ranges::find_if(band, changed) - band.begin()
                              : std::find_if(band.rbegin(), band.rend(), changed) - band.rbegin() + 1;
  std::string sentence =
      fmt::format("expected the memory {} {} to be left alone, found byte {} {} it overwritten", side, field,
                  nearest, side);
  if (bytes > 1) sentence += fmt::format(", {} bytes in all", grouped_digits(bytes));
  if (changed(behind ? band.back() : band.front()))
    sentence += ", up to the end of the guard band: whatever lies beyond it may be hit as well";
  return sentence;
}

}  // namespace

std::string name_of(Field field, wire::Role role) {
  return std::string(name(field)) + (role == wire::Role::Previous ? " of before" : "");
}

wire::Room make_room(PlacedField field, const Shape& shape, wire::Role role, std::int64_t guard,
                     std::int64_t at) {
  wire::Room room;
  room.field = static_cast<std::int32_t>(field.field);
  room.dtype = static_cast<std::int32_t>(field.dtype);
  room.role = role;
  room.at = at;
  room.guard = guard;
  room.payload = element_count(shape) * static_cast<std::int64_t>(row(field.dtype).size);
  room.image = (guard + room.payload + guard + kPage - 1) / kPage * kPage;
  return room;
}

void poison_image(std::byte* image, const wire::Room& room) {
  std::memset(image, std::to_integer<int>(kGuard), static_cast<std::size_t>(room.image));
  std::memset(image + room.guard, kPoison, static_cast<std::size_t>(room.payload));
}

std::optional<std::string> broken_guard(const std::byte* image, const wire::Room& room) {
  const auto field = name(static_cast<Field>(room.field));
  if (auto sentence = broken(front(image, room), "before", field, false)) return sentence;
  return broken(rear(image, room), "behind", field, true);
}

std::uint64_t payload_fingerprint(const std::byte* image, const wire::Room& room) {
  return fingerprint({image + room.guard, static_cast<std::size_t>(room.payload)});
}

std::uint64_t guards_fingerprint(const std::byte* image, const wire::Room& room) {
  return fingerprint(front(image, room)) ^ fingerprint(rear(image, room)) << 1;
}

}  // namespace assay::cli
