// A golden or dump out of the description of a file: what read_golden does once the description has come.
#pragma once

#include <cstdint>
#include <filesystem>

#include "golden/claimed_sizes.h"
#include "golden/golden_file.h"
#include "golden/sealed_reader.h"

namespace assay {

/// Reads and checks everything, as read_golden says. `path` names the file in errors; `memory` is what its
/// tensors may take together.
GoldenFile golden_of(const hdf5::DescribedFile& file, const std::filesystem::path& path,
                     const Regenerators& regenerators, std::uint64_t memory = machine_memory());

}  // namespace assay
