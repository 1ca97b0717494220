#include "golden/safetensors.h"

#include <algorithm>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "harness/contract/error.h"
#include "harness/host/json_text.h"

namespace assay {
namespace {

using nlohmann::json;

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kLongestHeader = 100'000'000;  // the reference reader's limit

struct DTypeBits {
  std::string_view name;
  std::uint64_t bits;
};
constexpr DTypeBits kDTypes[] = {
    {"BOOL", 8},    {"U8", 8},   {"I8", 8},      {"I16", 16},    {"U16", 16},        {"F16", 16},
    {"BF16", 16},   {"I32", 32}, {"U32", 32},    {"F32", 32},    {"F64", 64},        {"I64", 64},
    {"U64", 64},    {"C64", 64}, {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E5M2FNUZ", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E8M0", 8}, {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6},
};

/// Everything that can be wrong is said with the file's name.
struct Checker {
  const std::filesystem::path& path;

  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(fmt::format("{} is not a valid safetensors file: {}", path.string(), what));
  }

  void read(const OpenedFile& file, std::uint64_t at, std::span<std::byte> bytes) const {
    try {
      file.read(at, bytes);
    } catch (const InputError& error) {
      throw InputError(fmt::format("{} {}", path.string(), error.what()));
    }
  }

  json parse(std::string_view header) const {
    // A byte-order mark or leading space would be skipped by the parser; the format forbids both.
    if (!header.starts_with('{')) fail("its header does not start with '{'");
    if (json_is_too_deep(header)) fail(fmt::format("its header nests deeper than {}", kDeepestJson));
    std::string duplicate;
    auto parsed = parse_json(header, duplicate);
    if (parsed.is_discarded() || !parsed.is_object()) fail("its header is not JSON");
    if (!duplicate.empty()) fail(fmt::format("the name '{}' occurs twice", duplicate));
    return parsed;
  }

  std::uint64_t natural(const json& value, const std::string& tensor, const char* what) const {
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > INT64_MAX)
      fail(fmt::format("tensor '{}': its {} has an entry that is not a natural number", tensor, what));
    return value.get<std::uint64_t>();
  }

  const json& member(const json& entry, const std::string& tensor, const char* key) const {
    const auto found = entry.find(key);
    if (found == entry.end()) fail(fmt::format("tensor '{}' has no {}", tensor, key));
    return *found;
  }

  /// Bytes that shape and dtype ask for.
  std::uint64_t size_of(const SafetensorsEntry& entry, const std::string& tensor) const {
    const auto known = std::ranges::find(kDTypes, std::string_view(entry.dtype), &DTypeBits::name);
    if (known == std::end(kDTypes))
      fail(fmt::format("tensor '{}' has the unknown dtype '{}'", tensor, entry.dtype));
    std::uint64_t bits = known->bits;
    for (const auto extent : entry.shape)
      if (__builtin_mul_overflow(bits, static_cast<std::uint64_t>(extent), &bits))
        fail(fmt::format("tensor '{}' of shape {} is too large", tensor, to_string(entry.shape)));
    if (bits % 8 != 0)
      fail(fmt::format("tensor '{}' of shape {} does not fill whole bytes", tensor, to_string(entry.shape)));
    return bits / 8;
  }

  /// The data begin at byte `first` of the file and are `bytes` long.
  SafetensorsEntry entry(const std::string& tensor, const json& value, std::uint64_t first,
                         std::uint64_t bytes) const {
    if (!value.is_object()) fail(fmt::format("tensor '{}' is not described by an object", tensor));
    for (const auto& [key, unused] : value.items())
      if (key != "dtype" && key != "shape" && key != "data_offsets")
        fail(fmt::format("tensor '{}' has the unknown key '{}'", tensor, key));
    SafetensorsEntry result;
    const auto& dtype = member(value, tensor, "dtype");
    const auto& shape = member(value, tensor, "shape");
    const auto& offsets = member(value, tensor, "data_offsets");
    if (!dtype.is_string() || !shape.is_array() || !offsets.is_array() || offsets.size() != 2)
      fail(fmt::format("tensor '{}': expected a dtype text, a shape list and two data_offsets", tensor));
    result.dtype = dtype.get<std::string>();
    for (const auto& extent : shape)
      result.shape.push_back(static_cast<std::int64_t>(natural(extent, tensor, "shape")));
    const auto begin = natural(offsets[0], tensor, "data_offsets");
    const auto end = natural(offsets[1], tensor, "data_offsets");
    if (begin > end || end > bytes)
      fail(fmt::format("tensor '{}' lies at bytes {} to {} of {}", tensor, begin, end, bytes));
    if (const auto size = size_of(result, tensor); size != end - begin)
      fail(fmt::format("tensor '{}' of {} {} needs {} bytes, found {}", tensor, result.dtype,
                       to_string(result.shape), size, end - begin));
    result.begin = first + begin;
    result.size = end - begin;
    return result;
  }

  /// The tensors cover the buffer once: no holes, no overlaps.
  void check_cover(const SafetensorsFile& file, std::uint64_t first, std::uint64_t bytes) const {
    struct Extent {
      std::uint64_t begin;
      std::uint64_t end;
      const std::string* name;
    };
    std::vector<Extent> extents;
    for (const auto& [name, tensor] : file.tensors)
      extents.push_back({tensor.begin - first, tensor.begin - first + tensor.size, &name});
    std::ranges::sort(extents, [](const Extent& a, const Extent& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    std::uint64_t covered = 0;
    for (const auto& [begin, end, name] : extents) {
      if (begin < covered) fail(fmt::format("tensor '{}' overlaps another at byte {}", *name, begin));
      if (begin > covered)
        fail(fmt::format("bytes {} to {} before tensor '{}' belong to no tensor", covered, begin, *name));
      covered = end;
    }
    if (covered != bytes) fail(fmt::format("the last {} bytes belong to no tensor", bytes - covered));
  }
};

}  // namespace

SafetensorsFile open_safetensors(const std::filesystem::path& path) {
  const Checker check{path};
  SafetensorsFile file{path, std::make_shared<const OpenedFile>(path), {}};
  const auto size = file.source->size();
  if (size < kLengthBytes) check.fail(fmt::format("it has {} bytes, too few for the header's length", size));
  std::uint64_t length = 0;
  check.read(*file.source, 0, std::as_writable_bytes(std::span(&length, 1)));
  if (length > kLongestHeader)
    check.fail(fmt::format("its header claims {} bytes, more than the {} allowed", length, kLongestHeader));
  if (length > size - kLengthBytes)
    check.fail(fmt::format("its header claims {} bytes, the file has {} after the length", length,
                           size - kLengthBytes));

  std::string header(length, '\0');
  check.read(*file.source, kLengthBytes, std::as_writable_bytes(std::span(header)));
  const auto parsed = check.parse(header);
  const auto first = kLengthBytes + length;
  for (const auto& [name, value] : parsed.items()) {
    if (name != "__metadata__") {
      file.tensors.emplace(name, check.entry(name, value, first, size - first));
      continue;
    }
    if (!value.is_object() || !std::ranges::all_of(value, [](const json& text) { return text.is_string(); }))
      check.fail("__metadata__ is not an object of texts");
  }
  check.check_cover(file, first, size - first);
  return file;
}

}  // namespace assay
