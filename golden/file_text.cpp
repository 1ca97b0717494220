#include "golden/file_text.h"

#include <span>

#include <fmt/format.h>

#include "golden/opened_file.h"
#include "harness/contract/error.h"

namespace assay {

std::string file_text(const std::filesystem::path& path, std::size_t most) {
  const OpenedFile file(path);
  if (file.size() > most)
    throw InputError(fmt::format("{} has {} bytes, more than the {} read", path.string(), file.size(), most));
  std::string text(file.size(), '\0');
  try {
    file.read(0, std::as_writable_bytes(std::span(text)));
  } catch (const InputError& error) {
    throw InputError(fmt::format("{} {}", path.string(), error.what()));
  }
  return text;
}

}  // namespace assay
