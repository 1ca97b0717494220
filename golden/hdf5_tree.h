// Reads an HDF5 file's metadata with the library. The library of HDF5 1.10 crashes on some damaged files, so
// only sealed_reader.cpp's child calls this, and tests that count on the library alone.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "golden/stored_object.h"

namespace assay::hdf5 {

/// Objects and attributes a file may hold, each; a golden has below 100 and 400.
inline constexpr std::size_t kMostEntries = 10'000;
/// Chunks of all datasets together.
inline constexpr std::size_t kMostChunks = std::size_t{1} << 20;

/// The root group with everything below it. What cannot be read of a single object or attribute stands in its
/// `refusal`; a file that cannot be opened or listed throws InputError. No raw data are read, no link but a
/// hard one is followed, no filter is run. `bytes` is the whole file, `path` opens it.
StoredObject read_tree(const std::filesystem::path& path, std::span<const std::byte> bytes);

}  // namespace assay::hdf5
