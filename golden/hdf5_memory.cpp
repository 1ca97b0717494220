#include "golden/hdf5_memory.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "harness/contract/error.h"

namespace assay::hdf5 {
namespace {

using Op = H5FD_file_image_op_t;

// The memory driver keeps the file in a buffer of ours. H5Fget_file_image would be shorter, yet in 1.10 its
// images carry a superblock whose checksum is wrong.
void* allocate(std::size_t size, Op, void*) { return std::malloc(size); }
void* copy(void* to, const void* from, std::size_t size, Op, void*) { return std::memcpy(to, from, size); }
void* resize(void* memory, std::size_t size, Op, void*) { return std::realloc(memory, size); }

herr_t release(void* memory, Op op, void* data) {
  if (op == H5FD_FILE_IMAGE_OP_FILE_CLOSE) {
    static_cast<Image*>(data)->memory.reset(static_cast<std::byte*>(memory));
  } else {
    std::free(memory);
  }
  return 0;
}

void* keep_data(void* data) { return data; }
herr_t leave_data(void*) { return 0; }

/// The driver's buffer is longer than the file; the superblock (version 2 and 3) states the file's end at
/// byte 28.
std::size_t end_of_file(const std::byte* image) {
  constexpr std::size_t kEndOfFileAddress = 28;
  std::uint64_t size = 0;
  std::memcpy(&size, image + kEndOfFileAddress, sizeof size);
  return size;
}

}  // namespace

MemoryFile::MemoryFile(std::size_t expected_bytes) : image_(std::make_unique<Image>()) {
  const std::string doing = "create an HDF5 file in memory";
  const auto access = file_access(doing);
  const std::size_t increment = std::clamp<std::size_t>(expected_bytes / 8, 1 << 16, 1 << 26);
  check(H5Pset_fapl_core(access.get(), increment, false), doing);
  H5FD_file_image_callbacks_t callbacks{allocate, copy, resize, release, keep_data, leave_data, image_.get()};
  check(H5Pset_file_image_callbacks(access.get(), &callbacks), doing);
  check(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110), doing);
  const auto creation = own(H5Pcreate(H5P_FILE_CREATE), H5Pclose, doing);
  check(H5Pset_obj_track_times(creation.get(), false), doing);
  file_ = own(H5Fcreate("assay-in-memory", H5F_ACC_TRUNC, creation.get(), access.get()), H5Fclose, doing);
}

Image MemoryFile::finish() {
  check(H5Fclose(file_.release()), "finish an HDF5 file in memory");
  if (!image_->memory) throw InputError("cannot finish an HDF5 file in memory: the library kept it open");
  image_->size = end_of_file(image_->memory.get());
  return std::move(*image_);
}

}  // namespace assay::hdf5
