// safetensors files, validated strictly before any byte is used. Tensors are read when they are asked for,
// never mapped: a file that is cut short meanwhile is an error, not a signal.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "golden/opened_file.h"
#include "harness/contract/tensor.h"

namespace assay {

/// One tensor of a file: row-major and little-endian, from byte `begin` of the file on.
struct SafetensorsEntry {
  std::string dtype;  // "BF16", "F32", ...
  Shape shape;
  std::uint64_t begin = 0;
  std::uint64_t size = 0;  // bytes
};

/// An opened file and where its tensors lie.
struct SafetensorsFile {
  std::filesystem::path path;
  std::shared_ptr<const OpenedFile> source;
  std::map<std::string, SafetensorsEntry> tensors;
};

/// Opens and checks a file: header length, JSON, duplicate names, dtypes, sizes against shapes, no holes, no
/// overlaps, nothing after the last tensor. Throws InputError naming the file and the tensor.
SafetensorsFile open_safetensors(const std::filesystem::path& path);

}  // namespace assay
