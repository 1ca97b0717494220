#include "golden/hdf5_dataset.h"

#include <algorithm>

#include <fmt/format.h>

#include "golden/hdf5_attribute.h"
#include "harness/contract/error.h"

namespace assay::hdf5 {
namespace {

constexpr std::size_t kChunkBytes = 1 << 20;  // HDF5's default chunk cache
constexpr unsigned kDeflateLevel = 4;

Handle file_type(DType dtype) {
  switch (dtype) {
    case DType::BFloat16: return bf16_type();
    case DType::Int32: return own(H5Tcopy(H5T_STD_I32LE), H5Tclose, "build a type");
    case DType::Float64: break;
  }
  return own(H5Tcopy(H5T_IEEE_F64LE), H5Tclose, "build a type");
}

bool equal(const Handle& type, hid_t other) {
  return check(H5Tequal(type.get(), other), "compare two types") > 0;
}

Stored classify(const Handle& type) {
  switch (H5Tget_class(type.get())) {
    case H5T_INTEGER: return H5Tget_sign(type.get()) == H5T_SGN_NONE ? Stored::Unsigned : Stored::Signed;
    case H5T_FLOAT: break;
    default: return Stored::Other;
  }
  if (equal(type, bf16_type().get())) return Stored::Bf16;
  if (equal(type, H5T_IEEE_F32LE)) return Stored::Float32;
  if (equal(type, H5T_IEEE_F64LE)) return Stored::Float64;
  const auto half = own(H5Tcopy(H5T_IEEE_F32LE), H5Tclose, "build a type");
  check(H5Tset_fields(half.get(), 15, 10, 5, 0, 10), "build a type");
  check(H5Tset_size(half.get(), 2), "build a type");
  check(H5Tset_ebias(half.get(), 15), "build a type");
  return equal(type, half.get()) ? Stored::Float16 : Stored::Other;
}

std::vector<hsize_t> chunk_of(DType dtype, const Shape& shape, bool by_expert) {
  const std::size_t total = static_cast<std::size_t>(element_count(shape)) * row(dtype).size;
  std::size_t bytes = row(dtype).size;
  std::vector<hsize_t> chunk(shape.size(), 1);
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    const auto extent = static_cast<std::size_t>(shape[axis]);
    if (by_expert && axis == 0 && total > kChunkBytes) break;
    chunk[axis] = std::clamp<std::size_t>(kChunkBytes / bytes, 1, extent);
    bytes *= chunk[axis];
    if (chunk[axis] < extent) break;  // a row block: the axes before it stay 1
  }
  return chunk;
}

}  // namespace

std::string Dataset::stored_name() const {
  switch (stored) {
    case Stored::Bf16: return "bfloat16";
    case Stored::Float16: return "float16";
    case Stored::Float32: return "float32";
    case Stored::Float64: return "float64";
    case Stored::Signed: return fmt::format("int{}", 8 * element_size);
    case Stored::Unsigned: return fmt::format("uint{}", 8 * element_size);
    case Stored::Other: break;
  }
  return "another type";
}

Dataset as_dataset(Handle object, std::string path) {
  if (type_of(object) != H5I_DATASET)
    throw InputError(fmt::format("{}: expected a dataset, found another object", path));
  Dataset dataset;
  const std::string doing = fmt::format("read dataset {}", path);
  const auto space = own(H5Dget_space(object.get()), H5Sclose, doing);
  const auto type = own(H5Dget_type(object.get()), H5Tclose, doing);
  if (H5Sget_simple_extent_type(space.get()) == H5S_NULL)
    throw InputError(fmt::format("{} has no shape", path));
  std::vector<hsize_t> extents(
      static_cast<std::size_t>(check(H5Sget_simple_extent_ndims(space.get()), doing)));
  check(H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr), doing);
  for (const auto extent : extents) dataset.shape.push_back(static_cast<std::int64_t>(extent));

  dataset.stored = classify(type);
  dataset.element_size = H5Tget_size(type.get());
  const bool little_endian = dataset.element_size == 1 || H5Tget_order(type.get()) == H5T_ORDER_LE;
  if (dataset.stored == Stored::Other || !little_endian)
    throw InputError(fmt::format(
        "{}: expected little-endian bfloat16, float or integer elements, found another type", path));

  // A declared size that was never written reads as zeros; one that a filter cannot have shrunk so far is
  // damage.
  constexpr std::uint64_t kLargestRatio = 2000;  // deflate reaches 1032
  const auto allocated = H5Dget_storage_size(object.get());
  const auto elements = static_cast<std::uint64_t>(element_count(dataset.shape));
  if (elements > 0 && allocated == 0)
    throw InputError(fmt::format("{} of shape {} was never written", path, to_string(dataset.shape)));
  if (elements / kLargestRatio > allocated)
    throw InputError(fmt::format("{} of shape {} cannot fit its {} stored bytes", path,
                                 to_string(dataset.shape), allocated));

  dataset.dtype = read_string(object, "dtype", path);
  dataset.origin = read_string(object, "origin", path);
  dataset.sha256 = read_string(object, "sha256", path);
  dataset.path = std::move(path);
  dataset.handle = std::move(object);
  return dataset;
}

void read_raw(const Dataset& dataset, std::span<std::byte> bytes) {
  const std::string doing = fmt::format("read dataset {}", dataset.path);
  if (bytes.size() != static_cast<std::size_t>(element_count(dataset.shape)) * dataset.element_size)
    throw InputError(fmt::format("cannot {}: its size changed", doing));
  if (bytes.empty()) return;
  // Memory type = file type: no conversion.
  const auto type = own(H5Dget_type(dataset.handle.get()), H5Tclose, doing);
  check(H5Dread(dataset.handle.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()), doing);
}

Handle create_dataset(const Handle& parent, const std::string& name, DType dtype, const Shape& shape,
                      bool by_expert) {
  const std::string doing = fmt::format("create dataset {}", name);
  const std::vector<hsize_t> extents(shape.begin(), shape.end());
  const auto space =
      own(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr), H5Sclose, doing);
  const auto creation = own(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, doing);
  check(H5Pset_obj_track_times(creation.get(), false), doing);
  if (element_count(shape) > 0 && !shape.empty()) {
    const auto chunk = chunk_of(dtype, shape, by_expert);
    check(H5Pset_chunk(creation.get(), static_cast<int>(chunk.size()), chunk.data()), doing);
    check(H5Pset_shuffle(creation.get()), doing);
    check(H5Pset_deflate(creation.get(), kDeflateLevel), doing);
    check(H5Pset_fletcher32(creation.get()), doing);
  }
  return own(H5Dcreate2(parent.get(), name.c_str(), file_type(dtype).get(), space.get(), H5P_DEFAULT,
                        creation.get(), H5P_DEFAULT),
             H5Dclose, doing);
}

void write_all(const Handle& dataset, DType dtype, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  check(H5Dwrite(dataset.get(), file_type(dtype).get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()),
        "write a dataset");
}

}  // namespace assay::hdf5
