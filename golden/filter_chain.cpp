#include "golden/filter_chain.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "harness/contract/error.h"

namespace assay::hdf5 {
namespace {

// HDF5 File Format Specification 3.0, IV.A.2.l "Data Storage - Filter Pipeline".
constexpr std::int32_t kDeflate = 1;
constexpr std::int32_t kShuffle = 2;
constexpr std::int32_t kFletcher32 = 3;
constexpr std::size_t kChecksumBytes = 4;

const char* known_name(std::int32_t id) {
  switch (id) {
    case kDeflate: return "deflate";
    case kShuffle: return "shuffle";
    case kFletcher32: return "fletcher32";
    case 4: return "szip";
    case 5: return "n-bit";
    case 6: return "scale-offset";
    case 32000: return "lzf";
    default: return "";
  }
}

/// HDF5's Fletcher checksum: sums of big-endian 16-bit words modulo 65535, an odd last byte in the high half.
std::uint32_t fletcher32(std::span<const std::byte> bytes) {
  constexpr std::size_t kBlock = 8192;  // bytes whose sums stay far below 2^64
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  while (!bytes.empty()) {
    const auto block = bytes.first(std::min(bytes.size(), kBlock));
    bytes = bytes.subspan(block.size());
    for (std::size_t i = 0; i < block.size(); i += 2) {
      const auto second = i + 1 < block.size() ? static_cast<unsigned>(block[i + 1]) : 0u;
      low += static_cast<unsigned>(block[i]) << 8 | second;
      high += low;
    }
    low %= 65535;
    high %= 65535;
  }
  return static_cast<std::uint32_t>(high << 16 | low);
}

/// The library keeps a sum that is a multiple of 65535 as 65535 or as 0, depending on what was added.
bool same_checksum(std::uint32_t found, std::uint32_t stated) {
  const auto equal = [](std::uint32_t a, std::uint32_t b) { return a % 65535 == b % 65535; };
  return equal(found >> 16, stated >> 16) && equal(found & 0xffff, stated & 0xffff);
}

std::span<const std::byte> without_checksum(std::span<const std::byte> stored) {
  if (stored.size() < kChecksumBytes)
    throw InputError(fmt::format("has a chunk of {} bytes, too few for its fletcher32", stored.size()));
  const auto data = stored.first(stored.size() - kChecksumBytes);
  std::uint32_t stated = 0;
  std::memcpy(&stated, stored.data() + data.size(), kChecksumBytes);
  if (!same_checksum(fletcher32(data), stated)) throw InputError("has a chunk with a wrong fletcher32");
  return data;
}

std::vector<std::byte> inflated(std::span<const std::byte> stored, std::size_t size) {
  constexpr std::size_t kLargestRatio = 1032;  // zlib, "Technical details": deflate's limit
  if (size / kLargestRatio > stored.size())
    throw InputError(
        fmt::format("has a chunk of {} bytes that {} stored bytes cannot hold", size, stored.size()));
  std::vector<std::byte> out(size);
  z_stream stream{};
  if (inflateInit(&stream) != Z_OK) throw InputError("cannot be inflated: no memory");
  constexpr std::size_t kStep = std::size_t{1} << 30;  // zlib counts in 32 bits
  int code = Z_OK;
  std::size_t taken = 0;
  std::size_t given = 0;
  std::byte beyond{};  // a place for what must not come
  while (code == Z_OK) {
    const bool full = given == size;
    const auto in = std::min(stored.size() - taken, kStep);
    const auto room = full ? 1 : std::min(size - given, kStep);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(stored.data() + taken));
    stream.avail_in = static_cast<uInt>(in);
    stream.next_out = reinterpret_cast<Bytef*>(full ? &beyond : out.data() + given);
    stream.avail_out = static_cast<uInt>(room);
    code = ::inflate(&stream, Z_NO_FLUSH);
    taken += in - stream.avail_in;
    const auto came = room - stream.avail_out;
    given += came;
    if (full && came > 0) code = Z_DATA_ERROR;
  }
  inflateEnd(&stream);
  if (code != Z_STREAM_END || given != size || taken != stored.size())
    throw InputError(fmt::format("has a chunk that does not inflate to its {} bytes", size));
  return out;
}

/// Bytes j of all elements stand together; a rest that is no whole element is left alone.
std::vector<std::byte> unshuffled(std::span<const std::byte> stored, std::size_t element_size) {
  std::vector<std::byte> out(stored.begin(), stored.end());
  const auto count = stored.size() / element_size;
  for (std::size_t byte = 0; byte < element_size; ++byte)
    for (std::size_t i = 0; i < count; ++i) out[i * element_size + byte] = stored[byte * count + i];
  return out;
}

}  // namespace

std::string refused_filters(const std::vector<StoredFilter>& filters, std::uint64_t element_size) {
  for (std::size_t i = 0; i < filters.size(); ++i) {
    const auto& filter = filters[i];
    if (filter.id != kDeflate && filter.id != kShuffle && filter.id != kFletcher32) {
      const std::string known = known_name(filter.id);
      const auto& called = known.empty() ? filter.name : known;
      return fmt::format(
          "is stored with the filter {}{}; shuffle, deflate and fletcher32 are read (h5repack -f "
          "GZIP=4 rewrites it)",
          filter.id, called.empty() ? "" : fmt::format(" ({})", called));
    }
    for (std::size_t j = 0; j < i; ++j)
      if (filters[j].id == filter.id) return fmt::format("is stored with {} twice", known_name(filter.id));
    if (filter.id == kShuffle && (filter.first == 0 || filter.first != element_size))
      return fmt::format("is shuffled by {} bytes, its elements have {}", filter.first, element_size);
  }
  return "";
}

std::uint64_t largest_expansion(const std::vector<StoredFilter>& filters) {
  const bool deflated = std::ranges::find(filters, kDeflate, &StoredFilter::id) != filters.end();
  return deflated ? 1032 : 1;  // deflate writes 258 bytes as 2 bits at best
}

std::vector<std::byte> undo_filters(const std::vector<StoredFilter>& filters, std::uint32_t skipped,
                                    std::uint64_t element_size, std::span<const std::byte> stored,
                                    std::size_t size) {
  const auto applied = [&](std::size_t i) { return i >= 32 || (skipped >> i & 1u) == 0; };
  // What deflate was given: the elements, and a checksum where one was appended before it.
  std::size_t before_deflate = size;
  for (std::size_t i = 0; i < filters.size() && filters[i].id != kDeflate; ++i)
    if (filters[i].id == kFletcher32 && applied(i)) before_deflate += kChecksumBytes;
  std::vector<std::byte> owned(stored.begin(), stored.end());
  for (std::size_t i = filters.size(); i-- > 0;) {
    if (!applied(i)) continue;
    switch (filters[i].id) {
      case kFletcher32: owned.resize(without_checksum(owned).size()); break;
      case kDeflate: owned = inflated(owned, before_deflate); break;
      case kShuffle: owned = unshuffled(owned, element_size); break;
      default: throw InputError("is stored with an unknown filter");
    }
  }
  if (owned.size() != size)
    throw InputError(fmt::format("has a chunk of {} bytes where {} are due", owned.size(), size));
  return owned;
}

}  // namespace assay::hdf5
