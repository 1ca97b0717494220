// Images of rooms in shared memory: [guard][payload][guard], poison inside.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "harness/cli/plugin/plugin_wire.h"

namespace assay::cli {

/// A field as it is kept in a room.
struct PlacedField {
  Field field{};
  DType dtype{};
  friend bool operator==(const PlacedField&, const PlacedField&) = default;
};

/// "d_gate"; "d_gate of before"
std::string name_of(Field field, wire::Role role);

/// A room for a field of that shape with front guards of `guard` bytes, a multiple of 256, at byte `at` of
/// its memory.
wire::Room make_room(PlacedField field, const Shape& shape, wire::Role role, std::int64_t guard,
                     std::int64_t at);

/// Guards around, poison (NaN as bf16 and float32, -1 as an integer) inside.
void poison_image(std::byte* image, const wire::Room& room);

/// What of the guards was overwritten: "expected the memory behind x to be left alone, found ..."; nothing
/// where they are whole.
std::optional<std::string> broken_guard(const std::byte* image, const wire::Room& room);

std::uint64_t payload_fingerprint(const std::byte* image, const wire::Room& room);
std::uint64_t guards_fingerprint(const std::byte* image, const wire::Room& room);

}  // namespace assay::cli
