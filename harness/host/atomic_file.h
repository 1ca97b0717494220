// Output files that are either whole or absent.
#pragma once

#include <filesystem>
#include <string_view>

namespace assay {

/// Writes under a temporary name in the same folder, flushes to the disk and renames, so that a reader sees
/// the old file or the new one. A symbolic link is followed; what is no regular file (a pipe, /dev/stdout) is
/// written directly. Throws InputError with the path and the system's reason; the old file then stays as it
/// was and nothing else is left behind.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

}  // namespace assay
