// Memory other than the host's that code of somebody else reads and writes.
#pragma once

#include <cstddef>

namespace assay {

class ForeignMemory {
 public:
  virtual ~ForeignMemory() = default;

  /// Room for `bytes`, aligned to 256 bytes, freed with this object.
  virtual void* room(std::size_t bytes) = 0;
  /// Whatever runs afterwards sees what was written.
  virtual void write(void* room, const void* from, std::size_t bytes) = 0;
  virtual void read(void* to, const void* room, std::size_t bytes) = 0;
  /// Waits until everything the foreign code started has ended. Throws CandidateError when that reports an
  /// error.
  virtual void finish() = 0;
};

}  // namespace assay
