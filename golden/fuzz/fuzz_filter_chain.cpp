// A chunk and its filters. An input is: number of filters (1 byte), their ids (1 byte each), which of them
// were skipped (1 byte), bytes of an element (1 byte), bytes of the chunk (2 bytes), then the stored bytes.
#include <cstring>

#include "golden/filter_chain.h"
#include "harness/contract/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::span<const std::uint8_t> rest(data, size);
  const auto next = [&]() -> std::uint8_t {
    if (rest.empty()) return 0;
    const auto value = rest.front();
    rest = rest.subspan(1);
    return value;
  };
  std::vector<assay::hdf5::StoredFilter> filters(next() % 5);
  for (auto& filter : filters) filter.id = next();
  const std::uint32_t skipped = next();
  const std::uint64_t element = next() % 16 + 1;
  const std::size_t low = next();
  const std::size_t due = low | std::size_t{next()} << 8;
  for (auto& filter : filters) filter.first = static_cast<std::uint32_t>(element);
  if (!assay::hdf5::refused_filters(filters, element).empty()) return 0;
  try {
    const auto out = assay::hdf5::undo_filters(filters, skipped, element, std::as_bytes(rest), due);
    if (out.size() != due) __builtin_trap();
  } catch (const assay::InputError&) {
  }
  return 0;
}
