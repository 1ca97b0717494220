#include "golden/read_gradients.h"

#include <fmt/format.h>

#include "golden/schema.h"
#include "golden/sha256.h"
#include "harness/contract/error.h"

namespace assay {
namespace {

ReadPrevious regenerated(const hdf5::StoredObject& group, const std::string& path, const Shape& shape,
                         const Regenerators& regenerators, ClaimedSizes& sizes) {
  const auto stored = read_generator(group, path);
  if (stored.generator.shape != shape)
    throw InputError(fmt::format("{}: expected shape {}, found {}", path, to_string(shape),
                                 to_string(stored.generator.shape)));
  if (!regenerators.tensor)
    throw InputError(fmt::format("{} is to be regenerated, and no generator is at hand", path));
  sizes.keep(path, shape, DType::Float32);
  ReadPrevious read{regenerators.tensor(stored.generator), stored.generator,
                    generator_hash(stored.generator, stored.hashes_json), !stored.hashes.empty()};
  if (read.hash_stated && stored.hashes[0] != sha256_hex(read.tensor.bytes()))
    throw InputError(fmt::format("{}: regenerated, its SHA-256 is {}, the file says {}", path,
                                 sha256_hex(read.tensor.bytes()), stored.hashes[0]));
  return read;
}

}  // namespace

StoredTensor read_weight_gradient(const hdf5::Dataset& dataset, DType wanted,
                                  std::vector<std::string>& remarks) {
  try {
    return read_tensor(dataset, wanted, WideIntegers::Saturate, remarks);
  } catch (const StorageError&) {
    if (dataset.stored != hdf5::StoredAs::Float32 || dataset.dtype == "bfloat16") throw;
    return read_tensor(dataset, DType::Float32, WideIntegers::Saturate, remarks);
  }
}

ReadPrevious read_previous(const std::shared_ptr<const OpenedFile>& source, const hdf5::StoredObject& object,
                           const std::string& path, const Shape& shape, const Regenerators& regenerators,
                           ClaimedSizes& sizes, std::vector<std::string>& remarks) {
  if (object.kind == hdf5::ObjectKind::Group) return regenerated(object, path, shape, regenerators, sizes);
  const auto dataset = hdf5::as_dataset(source, object, path);
  try {
    const bool bits = dataset.stored == hdf5::StoredAs::Unsigned && dataset.element_size == 2;
    const DType dtype = bits ? DType::BFloat16 : dtype_of(dataset, DType::Float32);
    if ((dtype != DType::Float32 && dtype != DType::BFloat16) || dataset.shape != shape)
      throw InputError(fmt::format("{}: expected bfloat16 or float32 {}, found {} {}", path, to_string(shape),
                                   row(dtype).name, to_string(dataset.shape)));
    sizes.keep(path, dataset.shape, dtype);
    auto stored = read_tensor(dataset, dtype, WideIntegers::Refuse, remarks);
    return {std::move(stored.tensor), {}, stored.sha256, stored.hash_stated};
  } catch (const StorageError& error) {
    throw InputError(fmt::format("{}: {}", path, error.what()));
  }
}

}  // namespace assay
