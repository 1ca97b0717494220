// What a child says of a file, and the file's bytes: the parent must believe neither. An input is the length
// of the description (4 bytes, little-endian), the description, and the file.
#include <algorithm>
#include <cstring>

#include "golden/described_golden.h"
#include "golden/fuzz/fuzzed_file.h"
#include "golden/tree_message.h"
#include "harness/contract/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::uint32_t length = 0;
  if (size < sizeof length) return 0;
  std::memcpy(&length, data, sizeof length);
  const auto rest = std::as_bytes(std::span(data, size)).subspan(sizeof length);
  const auto described = rest.first(std::min<std::size_t>(length, rest.size()));
  const assay::fuzz::FuzzedFile file(rest.subspan(described.size()));
  try {
    auto root = assay::hdf5::decode(described);
    // What is decoded is what was said.
    const auto again = assay::hdf5::encode(root);
    if (!std::ranges::equal(std::as_bytes(std::span(again)), described)) __builtin_trap();
    assay::golden_of({std::make_shared<const assay::OpenedFile>(file.path()), std::move(root)}, "fuzz.h5",
                     {});
  } catch (const assay::InputError&) {
  }
  return 0;
}
