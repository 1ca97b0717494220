#include "golden/checkpoint.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "golden/checkpoint_shards.h"
#include "harness/contract/error.h"

namespace assay {
namespace {

namespace fs = std::filesystem;

/// The pieces of every expert's two matrices: gate and up in one piece when fused, in two when not.
struct ExpertPieces {
  std::vector<std::vector<WeightPiece>> gate_up;
  std::vector<std::vector<WeightPiece>> down;

  const std::vector<WeightPiece>& of(Field field, std::int64_t expert) const {
    return (field == Field::gate_up_proj ? gate_up : down).at(static_cast<std::size_t>(expert));
  }
};

std::string block_prefix(const Shards& shards, const fs::path& folder, std::int64_t layer) {
  std::vector<std::string> found;
  for (const char* model : {"model.", "model.language_model.", "language_model.model.", ""}) {
    auto prefix = fmt::format("{}layers.{}.mlp.", model, layer);
    if (shards.has(prefix + "gate.weight")) found.push_back(std::move(prefix));
  }
  if (found.empty())
    throw InputError(fmt::format("{} has no tensor 'model.layers.{}.mlp.gate.weight': layer {} has no router",
                                 folder.string(), layer, layer));
  if (found.size() > 1)
    throw InputError(fmt::format("{} has layer {} twice, below '{}' and '{}'", folder.string(), layer,
                                 found[0], found[1]));
  return found.front();
}

std::vector<std::vector<WeightPiece>> fused(Shards& shards, const std::string& name, const Shape& shape) {
  auto piece = shards.bf16(name, shape);
  piece.size /= static_cast<std::uint64_t>(shape[0]);
  std::vector<std::vector<WeightPiece>> pieces;
  for (std::int64_t expert = 0; expert < shape[0]; ++expert) {
    pieces.push_back({piece});
    piece.begin += piece.size;
  }
  return pieces;
}

/// The number of an expert in a name below the experts' prefix, or -1.
std::int64_t expert_number(const std::string& name, const std::string& experts) {
  std::int64_t expert = -1;
  std::from_chars(name.data() + experts.size(), name.data() + name.size(), expert);
  return expert;
}

/// Experts beyond the config's would mean that the two do not belong together.
void refuse_extra_experts(const Shards& shards, const std::string& experts, std::int64_t num_experts) {
  for (const auto& name : shards.below(experts))
    if (expert_number(name, experts) >= num_experts)
      throw InputError(
          fmt::format("the checkpoint has tensor '{}', config.json has {} experts", name, num_experts));
}

ExpertPieces one_by_one(Shards& shards, const std::string& experts, const MoeConfig& config) {
  const auto H = config.hidden_size;
  const auto I = config.moe_intermediate_size;
  ExpertPieces pieces;
  // Counting is the natural order: expert 10 follows 9.
  for (std::int64_t expert = 0; expert < config.num_experts; ++expert) {
    const auto piece = [&](const char* projection, const Shape& shape) {
      return shards.bf16(fmt::format("{}{}.{}.weight", experts, expert, projection), shape);
    };
    pieces.gate_up.push_back({piece("gate_proj", {I, H}), piece("up_proj", {I, H})});
    pieces.down.push_back({piece("down_proj", {H, I})});
  }
  return pieces;
}

/// Throws InputError where two layouts of the same experts hold other bits.
void require_same(const ExpertPieces& first, const ExpertPieces& second, const std::string& experts,
                  std::int64_t num_experts) {
  for (std::int64_t expert = 0; expert < num_experts; ++expert)
    for (const Field field : {Field::gate_up_proj, Field::down_proj}) {
      const auto one = read_pieces(first.of(field, expert));
      const auto other = read_pieces(second.of(field, expert));
      if (!std::ranges::equal(std::as_bytes(std::span(one)), std::as_bytes(std::span(other))))
        throw InputError(
            fmt::format("the checkpoint has its experts twice below '{}', fused and one by one, and {} of "
                        "expert {} differs",
                        experts, name(field), expert));
    }
}

ExpertPieces find_experts(Shards& shards, const std::string& experts, const MoeConfig& config,
                          std::vector<std::string>& remarks) {
  const auto H = config.hidden_size;
  const auto I = config.moe_intermediate_size;
  const auto E = config.num_experts;
  std::vector<ExpertPieces> layouts;
  for (const char* suffix : {"", ".weight"})
    if (shards.has(experts + "gate_up_proj" + suffix))
      layouts.push_back({fused(shards, experts + "gate_up_proj" + suffix, {E, 2 * I, H}),
                         fused(shards, experts + "down_proj" + suffix, {E, H, I})});
  refuse_extra_experts(shards, experts, E);
  const bool numbered = std::ranges::any_of(
      shards.below(experts), [&](const std::string& name) { return expert_number(name, experts) >= 0; });
  if (layouts.empty() || numbered) layouts.push_back(one_by_one(shards, experts, config));
  for (std::size_t i = 1; i < layouts.size(); ++i) require_same(layouts[0], layouts[i], experts, E);
  if (layouts.size() > 1)
    remarks.push_back("the checkpoint has its experts in two layouts, bit for bit the same");
  return layouts.front();
}

/// What stands below the block's prefix and was not read: refused where the layer would be another without
/// it.
void account_for_unused(const Shards& shards, const std::string& prefix, std::vector<std::string>& remarks) {
  std::vector<std::string> shared;
  std::vector<std::string> others;
  for (const auto& name : shards.unused(prefix)) {
    const auto rest = std::string_view(name).substr(prefix.size());
    if (rest.starts_with("gate.") || rest.starts_with("experts.") ||
        rest.find("bias") != std::string_view::npos || rest.find("scale") != std::string_view::npos)
      throw InputError(fmt::format(
          "the checkpoint has tensor '{}', which changes the layer and which Qwen3's has not", name));
    (rest.starts_with("shared_expert") ? shared : others).push_back(name);
  }
  if (!shared.empty())
    remarks.push_back(fmt::format(
        "{} tensors of a shared expert are not part of the routed layer judged here", shared.size()));
  if (!others.empty())
    remarks.push_back(fmt::format("{} tensor{} of the block {} not read: {}", others.size(),
                                  others.size() == 1 ? "" : "s", others.size() == 1 ? "was" : "were",
                                  fmt::join(others, ", ")));
}

}  // namespace

MoeWeights extract_hf_weights(const fs::path& folder, std::int64_t layer) {
  if (!fs::is_directory(folder)) throw InputError(fmt::format("{} is not a folder", folder.string()));
  MoeWeights weights;
  weights.config = read_hf_config(folder, layer, weights.remarks);
  const auto& config = weights.config;
  Shards shards(folder);
  const auto prefix = block_prefix(shards, folder, layer);
  const auto gate = shards.bf16(prefix + "gate.weight", {config.num_experts, config.hidden_size});
  weights.gate = Tensor(DType::BFloat16, {config.num_experts, config.hidden_size});
  std::ranges::copy(read_pieces({gate}), weights.gate.as<Bf16>().begin());
  const auto pieces = std::make_shared<const ExpertPieces>(
      find_experts(shards, prefix + "experts.", config, weights.remarks));
  account_for_unused(shards, prefix, weights.remarks);
  shards.require_once(prefix);
  weights.experts = [pieces](Field field, std::int64_t expert) -> ExpertMatrix {
    const auto values = std::make_shared<const std::vector<Bf16>>(read_pieces(pieces->of(field, expert)));
    return {*values, values};
  };
  return weights;
}

LayerOfCheckpoint from_hf(const fs::path& folder, std::int64_t layer, Tensor input) {
  auto weights = extract_hf_weights(folder, layer);
  const auto& shape = input.shape();
  if (input.dtype() != DType::BFloat16 || (shape.size() != 2 && shape.size() != 3) ||
      shape.back() != weights.config.hidden_size)
    throw InputError(fmt::format(
        "the input of layer {}: expected bfloat16 [T, {}] or [B, L, {}], found {} {}", layer,
        weights.config.hidden_size, weights.config.hidden_size, row(input.dtype()).name, to_string(shape)));
  LayerOfCheckpoint made;
  Problem& problem = made.problem;
  problem.name =
      fmt::format("{} layer {}", fs::absolute(folder / "").parent_path().filename().string(), layer);
  problem.config = weights.config;
  problem.batch = shape.size() == 3 ? shape[0] : 1;
  problem.sequence = shape[shape.size() - 2];
  input.reshape({problem.batch * problem.sequence, problem.config.hidden_size});
  problem.input = std::move(input);
  problem.gate = std::move(weights.gate);
  problem.experts = std::move(weights.experts);
  made.remarks = std::move(weights.remarks);
  return made;
}

}  // namespace assay
