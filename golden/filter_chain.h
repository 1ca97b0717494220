// The filters of a chunk, undone: shuffle, deflate and fletcher32, in any order, each at most once. The
// library's own filters trust sizes in the file; here every size is exact or the chunk is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "golden/stored_object.h"

namespace assay::hdf5 {

/// Why this chain cannot be undone, or an empty text: an unknown filter, one that occurs twice, a shuffle
/// over another size than the elements'.
std::string refused_filters(const std::vector<StoredFilter>& filters, std::uint64_t element_size);

/// How many bytes one stored byte can become at most.
std::uint64_t largest_expansion(const std::vector<StoredFilter>& filters);

/// The elements of one chunk, `size` bytes. `stored` is what lies in the file; bit i of `skipped` says that
/// filter i was not applied. The chain is one that `refused_filters` accepts. Throws InputError.
std::vector<std::byte> undo_filters(const std::vector<StoredFilter>& filters, std::uint32_t skipped,
                                    std::uint64_t element_size, std::span<const std::byte> stored,
                                    std::size_t size);

}  // namespace assay::hdf5
