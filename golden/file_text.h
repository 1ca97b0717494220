// Small text files of a checkpoint folder, read whole.
#pragma once

#include <filesystem>
#include <string>

namespace assay {

/// The bytes of a regular file of at most `most` bytes. Throws InputError: a folder, a FIFO, too large, ...
std::string file_text(const std::filesystem::path& path, std::size_t most);

}  // namespace assay
