// safetensors files: memory-mapped, validated strictly before any byte is used.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "golden/mapped_file.h"
#include "harness/contract/tensor.h"

namespace assay {

/// One tensor of a file. Its bytes are row-major and little-endian; their alignment is not promised.
struct SafetensorsEntry {
  std::string dtype;  // "BF16", "F32", ...
  Shape shape;
  std::span<const std::byte> bytes;
};

/// An opened file; `mapping` keeps the bytes alive.
struct SafetensorsFile {
  std::filesystem::path path;
  std::shared_ptr<const MappedFile> mapping;
  std::map<std::string, SafetensorsEntry> tensors;
};

/// Opens and checks a file: header length, JSON, duplicate names, dtypes, sizes against shapes, no holes, no
/// overlaps, nothing after the last tensor. Throws InputError naming the file and the tensor.
SafetensorsFile open_safetensors(const std::filesystem::path& path);

}  // namespace assay
