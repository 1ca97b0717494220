#include "golden/stored_dataset.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "golden/filter_chain.h"
#include "golden/sha256.h"
#include "harness/contract/error.h"

namespace assay::hdf5 {
namespace {

/// A dataset's rows of bytes, filled chunk by chunk.
class Assembly {
 public:
  Assembly(const Dataset& dataset, std::span<std::byte> out)
      : file_(*dataset.file), object_(*dataset.object), shape_(dataset.shape), out_(out) {}

  void contiguous() {
    if (object_.stretches.empty()) throw InputError("has no data");
    if (object_.stretches.size() != 1 || object_.stretches[0].bytes != out_.size())
      throw InputError(
          fmt::format("has {} stored bytes where {} are due", object_.stretches.front().bytes, out_.size()));
    require_inside(object_.stretches[0]);
    file_.read(object_.stretches[0].address, out_);
  }

  void chunked() {
    const auto& chunk = object_.chunk;
    if (chunk.size() != shape_.size()) throw InputError("has chunks of another rank");
    std::size_t size = object_.element_size;
    std::size_t grid = 1;
    for (std::size_t axis = 0; axis < chunk.size(); ++axis) {
      if (chunk[axis] < 1 || __builtin_mul_overflow(size, static_cast<std::size_t>(chunk[axis]), &size))
        throw InputError(fmt::format("has chunks of shape {}", to_string(chunk)));
      const auto count = static_cast<std::size_t>((shape_[axis] - 1) / chunk[axis] + 1);
      if (__builtin_mul_overflow(grid, count, &grid)) throw InputError("has too many chunks");
    }
    // A chunk larger than the dataset would be memory that the shape does not pay for.
    if (size > std::max(out_.size(), kMostPadding))
      throw InputError(fmt::format("has chunks of {} bytes", size));
    if (grid != object_.stretches.size())
      throw InputError(fmt::format("has {} chunks where {} are due", object_.stretches.size(), grid));
    const auto refused = refused_filters(object_.filters, object_.element_size);
    if (!refused.empty()) throw InputError(refused);
    std::vector<std::byte> raw;
    Shape at(chunk.size(), 0);
    for (const auto& stretch : object_.stretches) {
      require_inside(stretch);
      if (stretch.bytes / 2 > size + 4096)
        throw InputError(fmt::format("has a chunk of {} stored bytes for {}", stretch.bytes, size));
      raw.resize(stretch.bytes);
      file_.read(stretch.address, raw);
      place(undo_filters(object_.filters, stretch.skipped, object_.element_size, raw, size), at);
      for (std::size_t axis = at.size(); axis-- > 0;) {
        at[axis] += chunk[axis];
        if (at[axis] < shape_[axis]) break;
        at[axis] = 0;
      }
    }
  }

 private:
  static constexpr std::size_t kMostPadding = std::size_t{64} << 20;

  void require_inside(const StoredStretch& stretch) const {
    if (stretch.address > file_.size() || stretch.bytes > file_.size() - stretch.address)
      throw InputError("has data beyond the end of the file");
  }

  /// Copies the part of a chunk that lies inside the dataset, row by row of the last axis.
  void place(std::span<const std::byte> chunk_bytes, const Shape& at) {
    const auto& chunk = object_.chunk;
    const std::size_t element = object_.element_size;
    const auto last = chunk.size() - 1;
    const auto width = std::min(chunk[last], shape_[last] - at[last]);
    Shape in(chunk.size(), 0);  // in the chunk; the last axis stays 0
    for (;;) {
      std::int64_t from = 0;
      std::int64_t to = 0;
      for (std::size_t axis = 0; axis < chunk.size(); ++axis) {
        from = from * chunk[axis] + in[axis];
        to = to * shape_[axis] + at[axis] + in[axis];
      }
      std::memcpy(out_.data() + static_cast<std::size_t>(to) * element,
                  chunk_bytes.data() + static_cast<std::size_t>(from) * element,
                  static_cast<std::size_t>(width) * element);
      std::size_t axis = last;
      for (;; --axis) {
        if (axis == 0) return;
        const auto before = axis - 1;
        if (++in[before] < std::min(chunk[before], shape_[before] - at[before])) break;
        in[before] = 0;
      }
    }
  }

  const OpenedFile& file_;
  const StoredObject& object_;
  const Shape& shape_;
  std::span<std::byte> out_;
};

void turn_over(std::span<std::byte> bytes, std::size_t element_size) {
  for (std::size_t at = 0; at < bytes.size(); at += element_size)
    std::ranges::reverse(bytes.subspan(at, element_size));
}

/// A declared size that was never written, or only in part, or more than the file's bytes can be: before
/// memory is taken for it. Stretches may lie over one another or beyond the end; the file has no more than
/// its bytes.
void require_data(const OpenedFile& file, const StoredObject& object, std::uint64_t elements,
                  const std::string& path) {
  if (elements == 0) return;
  std::uint64_t written = 0;
  bool whole = !object.stretches.empty();
  for (const auto& stretch : object.stretches) {
    whole = whole && stretch.bytes > 0;
    if (__builtin_add_overflow(written, stretch.bytes, &written)) whole = false;
  }
  if (!whole)
    throw InputError(fmt::format("{} of shape {} was {}", path, to_string(object.shape),
                                 written == 0 ? "never written" : "not written completely"));
  written = std::min(written, file.size());
  constexpr std::uint64_t kHarmless = std::uint64_t{1} << 20;  // bytes: there the chunks say what is wrong
  const std::uint64_t most = std::max(kHarmless, written * largest_expansion(object.filters));
  if (object.element_size != 0 && elements <= most / object.element_size) return;
  const auto refused = refused_filters(object.filters, object.element_size);
  if (!refused.empty()) throw InputError(fmt::format("{} {}", path, refused));
  throw InputError(fmt::format("{} of shape {}, elements of {} bytes, is more than {} stored bytes can hold",
                               path, to_string(object.shape), object.element_size, written));
}

}  // namespace

Dataset as_dataset(const std::shared_ptr<const OpenedFile>& file, const StoredObject& object,
                   std::string path) {
  if (!object.refusal.empty()) throw InputError(fmt::format("{} {}", path, object.refusal));
  if (object.kind != ObjectKind::Dataset)
    throw InputError(fmt::format("{}: expected a dataset, found another object", path));
  Dataset dataset{file, &object, std::move(path), object.shape, object.stored, object.element_size, {},
                  {},   {}};
  const auto elements = static_cast<std::uint64_t>(element_count(dataset.shape));
  require_data(*file, object, elements, dataset.path);
  dataset.dtype = read_string(object, "dtype", dataset.path);
  dataset.origin = read_string(object, "origin", dataset.path);
  dataset.sha256 = read_string(object, "sha256", dataset.path);
  if (dataset.sha256) dataset.sha256 = lower_case(*std::move(dataset.sha256));
  return dataset;
}

void read_raw(const Dataset& dataset, std::span<std::byte> bytes) {
  if (dataset.element_size == 0 ||
      bytes.size() != static_cast<std::size_t>(element_count(dataset.shape)) * dataset.element_size)
    throw InputError(fmt::format("{}: its size changed", dataset.path));
  if (bytes.empty()) return;
  try {
    Assembly assembly(dataset, bytes);
    if (dataset.object->chunk.empty()) {
      assembly.contiguous();
    } else {
      assembly.chunked();
    }
  } catch (const InputError& error) {
    throw InputError(fmt::format("{} {}", dataset.path, error.what()));
  }
  if (dataset.object->big_endian) turn_over(bytes, dataset.element_size);
}

}  // namespace assay::hdf5
