#include "golden/hdf5_handle.h"

#include <fmt/format.h>

#include "harness/contract/error.h"

namespace assay::hdf5 {
namespace {

herr_t keep_innermost(unsigned /*n*/, const H5E_error2_t* error, void* data) {
  auto& reason = *static_cast<std::string*>(data);
  if (reason.empty() && error->desc != nullptr) reason = error->desc;
  return 0;
}

/// What the library's error stack names as the first cause; empties the stack.
std::string reason() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &text);
  H5Eclear2(H5E_DEFAULT);
  return text.empty() ? "HDF5 gives no reason" : text;
}

}  // namespace

std::unique_lock<std::recursive_mutex> lock() {
  static std::recursive_mutex mutex;
  std::unique_lock held(mutex);
  // Per thread in thread-safe builds, so it is repeated on every entry.
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  return held;
}

hssize_t check(hssize_t status, const std::string& doing) {
  if (status < 0) throw InputError(fmt::format("cannot {}: {}", doing, reason()));
  return status;
}

Handle own(hid_t id, Handle::Close close, const std::string& doing) {
  check(id, doing);
  return {id, close};
}

Handle file_access(const std::string& doing) {
  auto access = own(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, doing);
  // A failed read must not leave objects behind that keep the file, and its cached pages, open.
  check(H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG), doing);
  return access;
}

Handle open_file(const std::filesystem::path& path) {
  const std::string doing = "open it as HDF5";
  const auto access = file_access(doing);
#if H5_VERSION_GE(1, 10, 7)
  // Readers take no lock: network and read-only file systems often have none, and files are replaced whole.
  check(H5Pset_file_locking(access.get(), false, true), doing);
#endif
  return own(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose, doing);
}

Handle open_root(const Handle& file) {
  return own(H5Oopen(file.get(), "/", H5P_DEFAULT), H5Oclose, "open its root");
}

Handle create_group(const Handle& parent, const std::string& name) {
  const std::string doing = fmt::format("create group {}", name);
  const auto creation = own(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, doing);
  check(H5Pset_obj_track_times(creation.get(), false), doing);
  return own(H5Gcreate2(parent.get(), name.c_str(), H5P_DEFAULT, creation.get(), H5P_DEFAULT), H5Gclose,
             doing);
}

}  // namespace assay::hdf5
