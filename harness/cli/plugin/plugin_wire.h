// What the program and the child that runs a plug-in say to each other. Tensors lie in shared memory;
// messages name where. Both ends are the same program: plain structs will do.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "harness/contract/field.h"

namespace assay::wire {

/// Which function of the plug-in runs.
enum class Function : std::int32_t { Forward, Backward };

/// What a room is: input or weight, gradient of before, result of forward, or result of backward.
enum class Role : std::int32_t { Input, Previous, Result, Gradient };

/// Whether the room is in the problem's memory, which the child maps read-only.
constexpr bool read_only(Role role) { return role == Role::Input || role == Role::Previous; }

inline constexpr std::size_t kMostRooms = 2 * kFieldCount;

enum class Kind : std::int32_t {
  // To the child.
  Place,   // a problem of other sizes: its rooms, with the two shared memories (problem, results)
  Run,     // call the function
  Verify,  // fingerprints of the inputs as they are where the plug-in sees them
  // From the child.
  Step,       // what comes next: `text` says where, "in assay_plugin()"
  Described,  // the plug-in's row
  Refused,    // no plug-in, or not one that can run here: `text` is the sentence
  Broke,      // the plug-in crossed a rule: `text` is the sentence
  Done,
  Fault,  // a signal is about to end the child
};

/// A tensor in shared memory between guard bands: [guard][payload][guard]. The image begins at a page, the
/// front guard is `guard` bytes long, the rear one begins at the first byte behind the payload and ends at a
/// page.
struct Room {
  std::int32_t field = 0;
  std::int32_t dtype = 0;
  Role role = Role::Input;
  std::int64_t at = 0;       // of the image in its memory
  std::int64_t image = 0;    // bytes of the image
  std::int64_t guard = 0;    // bytes in front
  std::int64_t payload = 0;  // bytes
};

struct Request {
  Kind kind = Kind::Run;
  Function function = Function::Forward;
  std::int64_t tokens = 0;
  std::int64_t hidden_size = 0;
  std::int64_t moe_intermediate_size = 0;
  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;
  std::int32_t norm_topk_prob = 0;
  std::int64_t problem_bytes = 0;
  std::int64_t results_bytes = 0;
  std::int32_t rooms = 0;
  std::array<Room, kMostRooms> room{};
};

/// Where a fault hit, as far as it is known.
enum class Touched : std::int32_t { Elsewhere, Input, Before, Behind };

struct Reply {
  Kind kind = Kind::Done;
  std::int32_t status = 0;  // what the function returned
  std::int32_t memory = 0;  // ASSAY_HOST or ASSAY_DEVICE
  // Of a fault.
  std::int32_t signal = 0;
  std::int32_t has_address = 0;
  Touched touched = Touched::Elsewhere;
  std::int32_t wrote = 0;  // 1 written, 0 read, -1 not known
  std::int32_t field = -1;
  Role role = Role::Input;
  // Bytes from the field's nearest end; inside an input: from its start; elsewhere: the address.
  std::int64_t distance = 0;
  // fingerprints of inputs, by field
  std::array<std::uint64_t, kFieldCount> payloads{};
  std::array<std::uint64_t, kFieldCount> guards{};
  std::array<char, 24 << 10> text{};  // sentences, or words each ended by a zero
};
static_assert(std::is_trivially_copyable_v<Request> && std::is_trivially_copyable_v<Reply>);

}  // namespace assay::wire
