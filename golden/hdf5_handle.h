// A thin layer over HDF5's C API: owning handles, every call checked, the library's own reason inside the
// exception. The caller of these functions holds `hdf5::lock()`: upstream's library is not thread-safe.
#pragma once

#include <hdf5.h>

#include <filesystem>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace assay::hdf5 {

/// The one lock around HDF5; also switches the library's own printing off.
std::unique_lock<std::recursive_mutex> lock();

/// Owns one HDF5 identifier. Closing never throws.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  hid_t get() const { return id_; }
  /// Gives the identifier up without closing it.
  hid_t release() { return std::exchange(id_, H5I_INVALID_HID); }

 private:
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

/// Takes ownership of a fresh identifier. Throws InputError "cannot <doing>: <reason>" when it is negative.
Handle own(hid_t id, Handle::Close close, const std::string& doing);

/// Throws InputError "cannot <doing>: <reason>" when `status` is negative; returns it otherwise.
hssize_t check(hssize_t status, const std::string& doing);

/// Opens a file for reading. Throws InputError without the path when it is truncated or not HDF5.
Handle open_file(const std::filesystem::path& path);

/// Access properties under which closing a file closes every object in it.
Handle file_access(const std::string& doing);

/// The root group of an open file.
Handle open_root(const Handle& file);

Handle create_group(const Handle& parent, const std::string& name);
}  // namespace assay::hdf5
