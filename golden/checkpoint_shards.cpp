#include "golden/checkpoint_shards.h"

#include <span>

#include <fmt/format.h>

#include "golden/file_text.h"
#include "harness/contract/error.h"
#include "harness/host/json_text.h"

namespace assay {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

bool transposed(const Shape& found, const Shape& expected) {
  return found.size() == 3 && expected.size() == 3 && found == Shape{expected[0], expected[2], expected[1]};
}

}  // namespace

std::vector<Bf16> read_pieces(const std::vector<WeightPiece>& pieces) {
  std::size_t count = 0;
  for (const auto& piece : pieces) count += piece.size / sizeof(Bf16);
  std::vector<Bf16> values(count);
  auto rest = std::as_writable_bytes(std::span(values));
  for (const auto& piece : pieces) {
    try {
      piece.source->read(piece.begin, rest.first(piece.size));
    } catch (const InputError& error) {
      throw InputError(fmt::format("{} {}", piece.path.string(), error.what()));
    }
    rest = rest.subspan(piece.size);
  }
  return values;
}

Shards::Shards(const fs::path& folder) : folder_(folder) {
  const bool single = fs::exists(folder / kSingle);
  if (fs::exists(folder / kIndex)) {
    read_index(folder / kIndex);
    for (const auto& [name, file] : file_of_)
      if (file == kSingle) return;
    if (single)
      throw InputError(fmt::format(
          "{} has {} and {}, which does not name it: expected one of the two, for readers take either",
          folder.string(), kSingle, kIndex));
    return;
  }
  if (!single) throw InputError(fmt::format("{} has neither {} nor {}", folder.string(), kSingle, kIndex));
  for (const auto& [name, unused] : open(kSingle).tensors) file_of_[name] = kSingle;
}

WeightPiece Shards::bf16(const std::string& name, const Shape& shape) {
  const auto where = file_of_.find(name);
  if (where == file_of_.end()) throw InputError(fmt::format("{} has no tensor '{}'", folder_.string(), name));
  used_.insert(name);
  const auto& file = open(where->second);
  const auto found = file.tensors.find(name);
  if (found == file.tensors.end())
    throw InputError(
        fmt::format("{}: the index places tensor '{}' here, and it is not", file.path.string(), name));
  const auto& entry = found->second;
  if (entry.dtype != "BF16")
    throw InputError(fmt::format("{}: tensor '{}' is {}; only BF16 checkpoints are supported",
                                 file.path.string(), name, entry.dtype));
  if (entry.shape != shape)
    throw InputError(
        fmt::format("{}: tensor '{}': expected shape {}, found {}{}", file.path.string(), name,
                    to_string(shape), to_string(entry.shape),
                    transposed(entry.shape, shape) ? " (stored transposed, as Qwen3-VL-MoE does)" : ""));
  return {file.source, file.path, entry.begin, entry.size};
}

std::vector<std::string> Shards::below(const std::string& prefix) const {
  std::vector<std::string> names;
  for (auto at = file_of_.lower_bound(prefix); at != file_of_.end() && at->first.starts_with(prefix); ++at)
    names.push_back(at->first);
  return names;
}

std::vector<std::string> Shards::unused(const std::string& prefix) const {
  auto names = below(prefix);
  std::erase_if(names, [&](const std::string& name) { return used_.contains(name); });
  return names;
}

void Shards::require_once(const std::string& prefix) {
  std::set<std::string> shards;
  for (const auto& [name, file] : file_of_) shards.insert(file);
  std::map<std::string, std::string> first;
  for (const auto& shard : shards) {
    // A file that no tensor of the layer lies in need not be there.
    if (!files_.contains(shard) && !fs::is_regular_file(folder_ / shard)) continue;
    const auto& tensors = open(shard).tensors;
    for (auto at = tensors.lower_bound(prefix); at != tensors.end() && at->first.starts_with(prefix); ++at) {
      if (!file_of_.contains(at->first))
        throw InputError(fmt::format("{} has tensor '{}', which the index does not name",
                                     (folder_ / shard).string(), at->first));
      if (const auto [known, is_new] = first.emplace(at->first, shard); !is_new)
        throw InputError(fmt::format("{}: tensor '{}' lies in {} and in {}", folder_.string(), at->first,
                                     known->second, shard));
    }
  }
}

void Shards::read_index(const fs::path& path) {
  constexpr std::size_t kLongest = 100'000'000;  // a checkpoint of 10^6 tensors
  std::string twice;
  const auto index = parse_json(file_text(path, kLongest), twice);
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object())
    throw InputError(fmt::format("{}: expected a JSON object with a weight_map", path.string()));
  if (!twice.empty()) throw InputError(fmt::format("{}: the name '{}' occurs twice", path.string(), twice));
  for (const auto& [name, file] : map->items()) {
    // A plain file name: an index must not lead out of its folder.
    if (!file.is_string() || fs::path(file.get<std::string>()).filename() != file.get<std::string>())
      throw InputError(fmt::format("{}: tensor '{}' lies in {}, which is no file name", path.string(), name,
                                   json_text(file)));
    file_of_[name] = file.get<std::string>();
  }
}

const SafetensorsFile& Shards::open(const std::string& name) {
  const auto known = files_.find(name);
  return known != files_.end() ? known->second
                               : files_.emplace(name, open_safetensors(folder_ / name)).first->second;
}

}  // namespace assay
