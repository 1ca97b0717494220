// The rooms of one problem as the plug-in sees them. In the child only.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "harness/cli/plugin/plugin_wire.h"
#include "harness/host/foreign_memory.h"

namespace assay::cli {

/// Host memory: each room is mapped by itself, inputs read-only, with nothing mapped for up to a gigabyte
/// around it: whoever leaves a room by more than its guard band faults. Device memory: a copy of each image.
class ChildRooms {
 public:
  /// Takes both descriptors over. `device` is null for host memory. Throws InputError.
  ChildRooms(const wire::Request& request, int problem, int results, std::unique_ptr<ForeignMemory> device);
  ~ChildRooms();
  ChildRooms(const ChildRooms&) = delete;
  ChildRooms& operator=(const ChildRooms&) = delete;

  /// Where the plug-in finds the payload of the field's room of that role; null without one.
  void* payload(Field field, wire::Role role) const;
  /// As what a gradient's elements are kept; nothing without a room.
  std::optional<DType> gradient_dtype(Field field) const;
  /// Hands the images of inputs and weights to the device.
  void send_problem();
  /// Hands over what changes before a call: before forward the tokens' rows and all results, before backward
  /// the gradients alone, for results lie as forward left them.
  void send(wire::Function before);
  /// Waits for the device and fetches the images of results and gradients. Throws CandidateError.
  void fetch();
  /// Of every input's payload and guards, where the plug-in sees them.
  void fingerprints(wire::Reply& reply) const;
  /// What the address belongs to. Async-signal-safe.
  void locate(const void* address, wire::Reply& fault) const;

 private:
  struct Placed {
    wire::Room room;
    std::byte* image = nullptr;   // in this process
    std::byte* device = nullptr;  // its copy there
  };
  std::byte* map(const wire::Room& room, int file);
  const Placed* find(Field field, wire::Role role) const;
  void write(const Placed& one);

  std::vector<Placed> placed_;
  std::unique_ptr<ForeignMemory> device_;
  std::byte* reserved_ = nullptr;
  std::size_t reserved_bytes_ = 0;
  std::size_t next_ = 0;
  std::size_t gap_ = 0;
};

}  // namespace assay::cli
