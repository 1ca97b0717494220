// The safetensors files of a checkpoint folder, as one set of named tensors.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "golden/safetensors.h"
#include "harness/contract/bf16.h"

namespace assay {

/// A tensor's bytes, or one expert's among them, as they lie in a file.
struct WeightPiece {
  std::shared_ptr<const OpenedFile> source;
  std::filesystem::path path;
  std::uint64_t begin = 0;
  std::uint64_t size = 0;  // bytes
};

/// The values of several pieces, one behind the other. Safe from any thread. Throws InputError naming the
/// file that cannot be read any more.
std::vector<Bf16> read_pieces(const std::vector<WeightPiece>& pieces);

/// A checkpoint's tensors by name; only the files that are needed are opened.
class Shards {
 public:
  /// Throws InputError: no files, an index that is none or names a tensor twice, or both forms that disagree.
  explicit Shards(const std::filesystem::path& folder);

  bool has(const std::string& name) const { return file_of_.contains(name); }

  /// The bfloat16 tensor of that name and shape. Throws InputError.
  WeightPiece bf16(const std::string& name, const Shape& shape);

  /// Names below a prefix, in ascending order of their text.
  std::vector<std::string> below(const std::string& prefix) const;

  /// The tensors below a prefix that nobody asked for.
  std::vector<std::string> unused(const std::string& prefix) const;

  /// Throws InputError where a tensor below the prefix lies in two of the files: which one a reader takes
  /// depends on the order in which it opens them.
  void require_once(const std::string& prefix);

 private:
  void read_index(const std::filesystem::path& path);
  const SafetensorsFile& open(const std::string& name);

  std::filesystem::path folder_;
  std::map<std::string, std::string> file_of_;
  std::map<std::string, SafetensorsFile> files_;
  std::set<std::string> used_;
};

}  // namespace assay
