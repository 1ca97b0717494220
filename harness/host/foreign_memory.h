// Memory that code of somebody else reads and writes: poisoned rooms between guard bands.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace assay {

class ForeignMemory {
 public:
  virtual ~ForeignMemory() = default;

  /// Room for `bytes`, filled with kPoison, aligned to 256 bytes, between guard bands; freed with this
  /// object. `name` is for sentences.
  virtual void* room(const std::string& name, std::size_t bytes) = 0;
  virtual void write(void* room, const void* from, std::size_t bytes) = 0;
  virtual void read(void* to, const void* room, std::size_t bytes) = 0;
  virtual void poison(void* room, std::size_t bytes) = 0;

  /// Waits until everything the foreign code started has ended. Throws CandidateError when that reports an
  /// error.
  virtual void finish() = 0;
  /// Throws CandidateError naming the room when a byte next to one was written.
  virtual void verify_guards() const = 0;

  static constexpr unsigned char kPoison = 0xff;  // NaN as bf16, -1 as an integer
  static constexpr unsigned char kGuard = 0x5a;
};

std::unique_ptr<ForeignMemory> host_foreign_memory();

}  // namespace assay
