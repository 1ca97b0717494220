// For tests: files as other programs write or change them, with plain HDF5 calls.
#pragma once

#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "golden/hdf5_attribute.h"
#include "golden/hdf5_dataset.h"
#include "golden/hdf5_type.h"
#include "golden/schema.h"

namespace assay::test {

/// Opens a written file for surgery, as a user with another HDF5 tool would.
struct Surgery {
  std::unique_lock<std::recursive_mutex> lock = hdf5::lock();
  hdf5::Handle file;
  explicit Surgery(const std::filesystem::path& path)
      : file(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose) {
    REQUIRE(file.get() >= 0);
  }
  void remove(const char* path) { REQUIRE(H5Ldelete(file.get(), path, H5P_DEFAULT) >= 0); }
  void remove_attribute(const char* path, const char* name) {
    REQUIRE(H5Adelete_by_name(file.get(), path, name, H5P_DEFAULT) >= 0);
  }
  /// A plain contiguous dataset, with dtype attribute when `dtype` is not empty. `path` must be free.
  void add(const char* path, hid_t type, const Shape& shape, const void* data,
           const std::string& dtype = "") {
    const std::vector<hsize_t> extents(shape.begin(), shape.end());
    const hdf5::Handle space(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr),
                             H5Sclose);
    const hdf5::Handle set(
        H5Dcreate2(file.get(), path, type, space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Dclose);
    REQUIRE(set.get() >= 0);
    if (data != nullptr) REQUIRE(H5Dwrite(set.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    if (!dtype.empty()) fixed_string(set, "dtype", dtype);
  }
  /// Fixed-length strings: removing and adding them leaves the heap of texts alone.
  static void fixed_string(const hdf5::Handle& object, const char* name, const std::string& value) {
    const hdf5::Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(type.get(), value.size());
    const hdf5::Handle space(H5Screate(H5S_SCALAR), H5Sclose);
    const hdf5::Handle attribute(
        H5Acreate2(object.get(), name, type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
    REQUIRE(H5Awrite(attribute.get(), type.get(), value.data()) >= 0);
  }
};

/// A file as a PyTorch user may write it with plain HDF5 calls: no hashes, no filters, old format, only what
/// is required.
struct Foreign {
  std::unique_lock<std::recursive_mutex> lock = hdf5::lock();
  hdf5::Handle file;
  Foreign(const std::filesystem::path& path, const std::string& kind, const MoeConfig& config,
          std::int64_t batch, std::int64_t sequence, const std::string& version = "1.7")
      : file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose) {
    REQUIRE(file.get() >= 0);
    hdf5::write_string(file, "schema", "assay");
    hdf5::write_string(file, "schema_version", version);
    Surgery::fixed_string(file, "kind", kind);
    hdf5::write_string(file, "contract", "hf");
    hdf5::write_string(file, "config", config_json(config));
    hdf5::write_int64(file, "batch", batch);
    hdf5::write_uint64(file, "sequence", static_cast<std::uint64_t>(sequence));
    hdf5::create_group(file, "forward");
  }
};

}  // namespace assay::test
