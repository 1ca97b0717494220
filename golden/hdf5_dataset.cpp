#include "golden/hdf5_dataset.h"

#include <algorithm>

#include <fmt/format.h>

#include "golden/hdf5_type.h"

namespace assay::hdf5 {
namespace {

constexpr std::size_t kChunkBytes = 1 << 20;  // HDF5's default chunk cache
constexpr unsigned kDeflateLevel = 4;

Handle file_type(DType dtype) {
  switch (dtype) {
    case DType::BFloat16: return bf16_type();
    case DType::Int32: return own(H5Tcopy(H5T_STD_I32LE), H5Tclose, "build a type");
    case DType::Float32: return own(H5Tcopy(H5T_IEEE_F32LE), H5Tclose, "build a type");
    case DType::Float64: break;
  }
  return own(H5Tcopy(H5T_IEEE_F64LE), H5Tclose, "build a type");
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
