#include "golden/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>

#include <fmt/format.h>

#include "golden/file_text.h"
#include "golden/safetensors.h"
#include "harness/contract/error.h"
#include "harness/host/json_text.h"

namespace assay {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

/// A checkpoint's tensors by name; only the files that are needed are opened.
class Shards {
 public:
  explicit Shards(const fs::path& folder) : folder_(folder) {
    const auto index = folder / "model.safetensors.index.json";
    if (fs::exists(index)) {
      read_index(index);
      return;
    }
    const auto single = folder / "model.safetensors";
    if (!fs::exists(single))
      throw InputError(
          fmt::format("{} has neither model.safetensors nor model.safetensors.index.json", folder.string()));
    const auto& file = open("model.safetensors");
    for (const auto& [name, unused] : file.tensors) file_of_[name] = "model.safetensors";
  }

  bool has(const std::string& name) const { return file_of_.contains(name); }
  const std::map<std::string, std::string>& names() const { return file_of_; }

  /// The bfloat16 tensor of that name and shape, and what keeps it alive.
  std::pair<std::span<const std::byte>, std::shared_ptr<const void>> bf16(const std::string& name,
                                                                          const Shape& shape) {
    const auto where = file_of_.find(name);
    if (where == file_of_.end())
      throw InputError(fmt::format("{} has no tensor '{}'", folder_.string(), name));
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
    return {entry.bytes, file.mapping};
  }

 private:
  static bool transposed(const Shape& found, const Shape& expected) {
    return found.size() == 3 && expected.size() == 3 && found == Shape{expected[0], expected[2], expected[1]};
  }

  void read_index(const fs::path& path) {
    constexpr std::size_t kLongest = 100'000'000;  // a checkpoint of 10^6 tensors
    const auto index = parse_json(file_text(path, kLongest));
    const auto map = index.is_object() ? index.find("weight_map") : index.end();
    if (!index.is_object() || map == index.end() || !map->is_object())
      throw InputError(fmt::format("{}: expected a JSON object with a weight_map", path.string()));
    for (const auto& [name, file] : map->items()) {
      // A plain file name: an index must not lead out of its folder.
      if (!file.is_string() || fs::path(file.get<std::string>()).filename() != file.get<std::string>())
        throw InputError(fmt::format("{}: tensor '{}' lies in {}, which is no file name", path.string(), name,
                                     file.dump()));
      file_of_[name] = file.get<std::string>();
    }
  }

  const SafetensorsFile& open(const std::string& name) {
    const auto known = files_.find(name);
    return known != files_.end() ? known->second
                                 : files_.emplace(name, open_safetensors(folder_ / name)).first->second;
  }

  fs::path folder_;
  std::map<std::string, std::string> file_of_;
  std::map<std::string, SafetensorsFile> files_;
};

/// A matrix, or one expert of a stack of matrices, as it lies in a mapped file.
struct Piece {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

/// The pieces of every expert's two matrices: gate and up in one piece when fused, in two when not.
struct ExpertPieces {
  std::vector<std::vector<Piece>> gate_up;
  std::vector<std::vector<Piece>> down;
};

std::string block_prefix(const Shards& shards, const fs::path& folder, std::int64_t layer) {
  for (const char* model : {"model.", "model.language_model.", "language_model.model.", ""}) {
    const auto prefix = fmt::format("{}layers.{}.mlp.", model, layer);
    if (shards.has(prefix + "gate.weight")) return prefix;
  }
  throw InputError(fmt::format("{} has no tensor 'model.layers.{}.mlp.gate.weight': layer {} has no router",
                               folder.string(), layer, layer));
}

std::vector<std::vector<Piece>> fused(Shards& shards, const std::string& name, const Shape& shape) {
  const auto [bytes, owner] = shards.bf16(name, shape);
  const auto count = bytes.size() / static_cast<std::size_t>(shape[0]);
  std::vector<std::vector<Piece>> pieces;
  for (std::size_t expert = 0; expert < static_cast<std::size_t>(shape[0]); ++expert)
    pieces.push_back({{bytes.subspan(expert * count, count), owner}});
  return pieces;
}

/// Experts beyond the config's would mean that the two do not belong together.
void refuse_extra_experts(const Shards& shards, const std::string& experts, std::int64_t num_experts) {
  for (auto at = shards.names().lower_bound(experts);
       at != shards.names().end() && at->first.starts_with(experts); ++at) {
    std::int64_t expert = 0;
    const char* begin = at->first.data() + experts.size();
    const auto [end, error] = std::from_chars(begin, at->first.data() + at->first.size(), expert);
    if (error == std::errc() && expert >= num_experts)
      throw InputError(
          fmt::format("the checkpoint has tensor '{}', config.json has {} experts", at->first, num_experts));
  }
}

ExpertPieces find_experts(Shards& shards, const std::string& experts, const MoeConfig& config) {
  const auto H = config.hidden_size;
  const auto I = config.moe_intermediate_size;
  const auto E = config.num_experts;
  for (const char* suffix : {"", ".weight"}) {
    if (shards.has(experts + "gate_up_proj" + suffix))
      return {fused(shards, experts + "gate_up_proj" + suffix, {E, 2 * I, H}),
              fused(shards, experts + "down_proj" + suffix, {E, H, I})};
  }
  refuse_extra_experts(shards, experts, E);
  ExpertPieces pieces;
  // Counting is the natural order: expert 10 follows 9.
  for (std::int64_t expert = 0; expert < E; ++expert) {
    const auto piece = [&](const char* projection, const Shape& shape) {
      const auto [bytes, owner] =
          shards.bf16(fmt::format("{}{}.{}.weight", experts, expert, projection), shape);
      return Piece{bytes, owner};
    };
    pieces.gate_up.push_back({piece("gate_proj", {I, H}), piece("up_proj", {I, H})});
    pieces.down.push_back({piece("down_proj", {H, I})});
  }
  return pieces;
}

ExpertMatrix assemble(const std::vector<Piece>& pieces) {
  const auto& first = pieces.front();
  if (pieces.size() == 1 && reinterpret_cast<std::uintptr_t>(first.bytes.data()) % alignof(Bf16) == 0)
    return {{reinterpret_cast<const Bf16*>(first.bytes.data()), first.bytes.size() / sizeof(Bf16)},
            first.owner};
  auto joined = std::make_shared<std::vector<Bf16>>();
  for (const auto& piece : pieces) {
    const auto at = joined->size();
    joined->resize(at + piece.bytes.size() / sizeof(Bf16));
    if (!piece.bytes.empty()) std::memcpy(joined->data() + at, piece.bytes.data(), piece.bytes.size());
  }
  return {*joined, joined};
}

}  // namespace

MoeWeights extract_hf_weights(const fs::path& folder, std::int64_t layer) {
  if (!fs::is_directory(folder)) throw InputError(fmt::format("{} is not a folder", folder.string()));
  MoeWeights weights;
  weights.config = read_hf_config(folder, layer, weights.remarks);
  const auto& config = weights.config;
  Shards shards(folder);
  const auto prefix = block_prefix(shards, folder, layer);
  const auto [gate, owner] = shards.bf16(prefix + "gate.weight", {config.num_experts, config.hidden_size});
  weights.gate = Tensor(DType::BFloat16, {config.num_experts, config.hidden_size});
  std::ranges::copy(gate, weights.gate.bytes().begin());
  const auto pieces = std::make_shared<const ExpertPieces>(find_experts(shards, prefix + "experts.", config));
  weights.experts = [pieces](Field field, std::int64_t expert) {
    const auto& of_weight = field == Field::gate_up_proj ? pieces->gate_up : pieces->down;
    return assemble(of_weight.at(static_cast<std::size_t>(expert)));
  };
  return weights;
}

Problem from_hf(const fs::path& folder, std::int64_t layer, Tensor input) {
  auto weights = extract_hf_weights(folder, layer);
  const auto& shape = input.shape();
  if (input.dtype() != DType::BFloat16 || (shape.size() != 2 && shape.size() != 3) ||
      shape.back() != weights.config.hidden_size)
    throw InputError(fmt::format(
        "the input of layer {}: expected bfloat16 [T, {}] or [B, L, {}], found {} {}", layer,
        weights.config.hidden_size, weights.config.hidden_size, row(input.dtype()).name, to_string(shape)));
  Problem problem;
  problem.name =
      fmt::format("{} layer {}", fs::absolute(folder / "").parent_path().filename().string(), layer);
  problem.config = weights.config;
  problem.batch = shape.size() == 3 ? shape[0] : 1;
  problem.sequence = shape[shape.size() - 2];
  input.reshape({problem.batch * problem.sequence, problem.config.hidden_size});
  problem.input = std::move(input);
  problem.gate = std::move(weights.gate);
  problem.experts = std::move(weights.experts);
  return problem;
}

}  // namespace assay
