// Datasets of a described file, and their raw bytes. The library takes no part: bytes are read in place and
// filters undone by filter_chain.h.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "golden/opened_file.h"
#include "golden/stored_object.h"

namespace assay::hdf5 {

/// A dataset with the attributes that the schema gives it.
struct Dataset {
  std::shared_ptr<const OpenedFile> file;
  const StoredObject* object = nullptr;  // of the tree, which outlives this
  std::string path;                      // "/forward/router_logits"
  Shape shape;
  StoredAs stored = StoredAs::Other;
  std::size_t element_size = 0;
  std::optional<std::string> dtype;   // attribute
  std::optional<std::string> origin;  // attribute
  std::optional<std::string> sha256;  // attribute, lower case

  /// "uint16", "big-endian float32", "text": how messages and the dtype attribute call the stored type.
  const std::string& stored_name() const { return object->type_name; }
};

/// Throws InputError when the object is not a dataset, or one that is not read.
Dataset as_dataset(const std::shared_ptr<const OpenedFile>& file, const StoredObject& object,
                   std::string path);

/// Reads all elements into `bytes`, which must hold shape x element_size: as they lie in the file, big-endian
/// ones turned over. Throws InputError naming the dataset.
void read_raw(const Dataset& dataset, std::span<std::byte> bytes);

}  // namespace assay::hdf5
