// Datasets as tensors. HDF5 only ever moves bits here: its own narrowing rounds halves up and loses carries.
#pragma once

#include <optional>
#include <string>

#include "golden/hdf5_handle.h"
#include "harness/contract/tensor.h"

namespace assay::hdf5 {

/// How a dataset's elements lie in the file.
enum class Stored { Bf16, Float16, Float32, Float64, Signed, Unsigned, Other };

/// A dataset opened for reading, with the attributes that the schema gives it.
struct Dataset {
  Handle handle;
  std::string path;  // "/forward/router_logits"
  Shape shape;
  Stored stored = Stored::Other;
  std::size_t element_size = 0;
  std::optional<std::string> dtype;   // attribute
  std::optional<std::string> origin;  // attribute
  std::optional<std::string> sha256;  // attribute

  /// "uint16", "float32", ...: how messages and the dtype attribute call the stored type.
  std::string stored_name() const;
};

/// Takes an opened object. Throws InputError when it is not a dataset, or holds no data.
Dataset as_dataset(Handle object, std::string path);

/// Reads all elements as they lie in the file into `bytes`, which must hold shape x element_size.
void read_raw(const Dataset& dataset, std::span<std::byte> bytes);

/// Creates a dataset in chunks of at most 1 MiB with shuffle, deflate 4 and fletcher32; without elements,
/// contiguous. `by_expert`: the first axis counts experts, and a chunk never spans two of them unless the
/// whole tensor is one chunk.
Handle create_dataset(const Handle& parent, const std::string& name, DType dtype, const Shape& shape,
                      bool by_expert);

/// Writes a whole tensor.
void write_all(const Handle& dataset, DType dtype, std::span<const std::byte> bytes);

}  // namespace assay::hdf5
