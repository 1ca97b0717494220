// What a file's tensors claim together. Each claim is held against the bytes stored for it
// (stored_dataset.h); many of them, each just below its own limit, must not take more time or memory than one
// may.
#pragma once

#include <cstdint>
#include <string>

#include "golden/stored_object.h"
#include "harness/contract/tensor.h"

namespace assay {

std::uint64_t machine_memory();

/// The budgets of one file that is read.
class ClaimedSizes {
 public:
  explicit ClaimedSizes(std::uint64_t memory = machine_memory()) : memory_(memory) {}

  /// Of a tensor, stored or to be regenerated, before it is read: throws InputError where what the file's
  /// tensors need together is more than `memory`.
  void keep(const std::string& path, const Shape& shape, DType dtype);

  /// Whether that many elements which the problem does not ask for (unknown datasets, fields of another
  /// shape) may be read: 2^25 of a file.
  bool spare(std::int64_t elements);

 private:
  std::uint64_t memory_;
  std::uint64_t kept_ = 0;
  std::int64_t spare_ = std::int64_t{1} << 25;
};

/// Throws InputError where the datasets below `root` claim more stored bytes together than a file of `size`
/// bytes holds for four names each: they lie over one another.
void require_own_bytes(const hdf5::StoredObject& root, std::uint64_t size);

}  // namespace assay
