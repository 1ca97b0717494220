// Files that appear whole or not at all: written under a temporary name in the same folder, then renamed.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace assay {

/// Writes `bytes` to `path`. On failure throws InputError with the system's reason, removes what was begun and leaves an
/// older file of that name untouched.
void write_file_whole(const std::filesystem::path& path, std::span<const std::byte> bytes);

}  // namespace assay
