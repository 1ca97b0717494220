#include "golden/claimed_sizes.h"

#include <unistd.h>

#include <limits>

#include <fmt/format.h>

#include "harness/contract/error.h"

namespace assay {
namespace {

constexpr auto kMost = std::numeric_limits<std::uint64_t>::max();

std::uint64_t sum(std::uint64_t a, std::uint64_t b) { return a > kMost - b ? kMost : a + b; }

std::uint64_t stored_bytes(const hdf5::StoredObject& object) {
  std::uint64_t bytes = 0;
  for (const auto& stretch : object.stretches) bytes = sum(bytes, stretch.bytes);
  for (const auto& child : object.children) bytes = sum(bytes, stored_bytes(child));
  return bytes;
}

}  // namespace

std::uint64_t machine_memory() {
  return static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
         static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

void ClaimedSizes::keep(const std::string& path, const Shape& shape, DType dtype) {
  const auto elements = static_cast<std::uint64_t>(element_count(shape));
  const std::uint64_t size = row(dtype).size;
  const bool alone = elements <= memory_ / size;
  if (alone && elements * size <= memory_ - kept_) {
    kept_ += elements * size;
    return;
  }
  throw InputError(fmt::format(
      "{} of shape {} needs more memory{} than the {} GB of this machine", path, to_string(shape),
      alone ? fmt::format(", with the {} MB of those before it,", kept_ >> 20) : "", memory_ >> 30));
}

bool ClaimedSizes::spare(std::int64_t elements) {
  if (elements > spare_) return false;
  spare_ -= elements;
  return true;
}

void require_own_bytes(const hdf5::StoredObject& root, std::uint64_t size) {
  constexpr std::uint64_t kNames = 4;  // h5py's `a[x] = a[y]` gives a dataset another name
  const auto stored = stored_bytes(root);
  if (stored / kNames <= size) return;
  throw InputError(fmt::format(
      "its datasets claim {} stored bytes of a file of {}: they lie over one another", stored, size));
}

}  // namespace assay
