// Tensors written as datasets; stored_dataset.h reads them. HDF5 only ever moves bits here: its own narrowing
// rounds halves up and loses carries.
#pragma once

#include <span>
#include <string>

#include "golden/hdf5_handle.h"
#include "harness/contract/tensor.h"

namespace assay::hdf5 {

/// Creates a dataset in chunks of at most 1 MiB with shuffle, deflate 4 and fletcher32; without elements,
/// contiguous. `by_expert`: the first axis counts experts, and a chunk never spans two of them unless the
/// whole tensor is one chunk.
Handle create_dataset(const Handle& parent, const std::string& name, DType dtype, const Shape& shape,
                      bool by_expert);

/// Writes a whole tensor.
void write_all(const Handle& dataset, DType dtype, std::span<const std::byte> bytes);

}  // namespace assay::hdf5
