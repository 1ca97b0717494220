// A golden or dump out of the description of a file: what read_golden does once the description has come.
#pragma once

#include <filesystem>

#include "golden/golden_file.h"
#include "golden/sealed_reader.h"

namespace assay {

/// Reads and checks everything, as read_golden says. `path` names the file in errors.
GoldenFile golden_of(const hdf5::DescribedFile& file, const std::filesystem::path& path,
                     const Regenerators& regenerators);

}  // namespace assay
