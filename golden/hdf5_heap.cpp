#include "golden/hdf5_heap.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include <fmt/format.h>

namespace assay::hdf5 {
namespace {

// HDF5 File Format Specification 3.0, III.E "Disk Format: Level 1E - Global Heap".
constexpr std::string_view kMagic("GCOL\x01\0\0\0", 8);  // signature, version 1, reserved
constexpr std::size_t kCollectionHeader = 16;            // magic, size
constexpr std::size_t kObjectHeader = 16;                // index, reference count, reserved, size

template <class T>
T load(std::string_view bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

/// Walks one collection, which starts at the front of `file`'s rest.
std::string damaged_collection(std::string_view rest, std::vector<std::string_view>& texts) {
  const auto size = rest.size() < kCollectionHeader ? 0 : load<std::uint64_t>(rest, 8);
  if (size < kCollectionHeader || size > rest.size())
    return fmt::format("its size {} does not fit the file", size);
  std::vector<std::uint16_t> indices;
  std::size_t at = kCollectionHeader;
  while (at + kObjectHeader <= size) {
    const auto index = load<std::uint16_t>(rest, at);
    const auto length = load<std::uint64_t>(rest, at + 8);
    if (index == 0) {  // free space: its length counts its own header
      if (length != size - at) return "its free space does not end with it";
      at = size;
      break;
    }
    const auto data = at + kObjectHeader;
    if (load<std::uint32_t>(rest, at + 4) != 0 || length > size - data)
      return fmt::format("object {} leaves it", index);
    const auto padded = (length + 7) / 8 * 8;
    if (padded > size - data) return fmt::format("object {} leaves it", index);
    if (rest.substr(data, length).find('\0') != std::string_view::npos)
      return fmt::format("object {} is not a text", index);
    indices.push_back(index);
    texts.push_back(rest.substr(data, length));
    at = data + padded;
  }
  if (size - at >= kObjectHeader) return "it has a gap";
  std::ranges::sort(indices);
  for (std::size_t i = 0; i < indices.size(); ++i)
    if (indices[i] != i + 1)
      return fmt::format(
          "object {} is missing (where attributes were overwritten in place, h5repack makes the file whole)",
          i + 1);
  return "";
}

}  // namespace

bool TextHeap::holds(std::string_view text) const { return std::ranges::binary_search(texts, text); }

TextHeap read_text_heap(std::span<const std::byte> file) {
  const std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
  TextHeap heap;
  for (auto at = bytes.find(kMagic); at != std::string_view::npos; at = bytes.find(kMagic, at + 1)) {
    const auto reason = damaged_collection(bytes.substr(at), heap.texts);
    if (reason.empty()) continue;
    heap.damage = fmt::format("the heap of texts at byte {} is damaged: {}", at, reason);
    break;
  }
  std::ranges::sort(heap.texts);
  return heap;
}

}  // namespace assay::hdf5
