// config.json of a checkpoint folder (transformers, configuration_qwen3_moe.py).
#include <algorithm>

#include <fmt/format.h>

#include "golden/checkpoint.h"
#include "golden/file_text.h"
#include "harness/contract/error.h"
#include "harness/host/json_text.h"

namespace assay {
namespace {

using nlohmann::json;

/// Reads members of a config; multimodal checkpoints keep the language model's under text_config.
struct ConfigReader {
  std::string path;
  json object;

  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(fmt::format("{}: {}", path, what));
  }

  const json* find(const std::string& key) const {
    const auto found = object.find(key);
    return found == object.end() || found->is_null() ? nullptr : &*found;
  }
  std::int64_t integer(const std::string& key, std::optional<std::int64_t> otherwise = std::nullopt) const {
    const auto* value = find(key);
    if (value == nullptr && otherwise) return *otherwise;
    if (value == nullptr) fail(fmt::format("'{}' is missing; is this a mixture of experts?", key));
    if (!value->is_number_integer()) fail(fmt::format("'{}' is not an integer", key));
    return value->get<std::int64_t>();
  }
};

ConfigReader open_config(const std::filesystem::path& folder) {
  ConfigReader config{(folder / "config.json").string(), {}};
  constexpr std::size_t kLongest = 1 << 24;
  std::string text;
  try {
    text = file_text(config.path, kLongest);
  } catch (const InputError& error) {
    throw InputError(
        fmt::format("expected a HuggingFace checkpoint in {}, found no config.json that can be read: {}",
                    folder.string(), error.what()));
  }
  config.object = parse_json(text);
  if (!config.object.is_object()) config.fail("it is not a JSON object");
  if (!config.object.contains("hidden_size") && config.object.contains("text_config")) {
    json text = config.object["text_config"];
    if (!text.is_object()) config.fail("'text_config' is not an object");
    config.object = std::move(text);
  }
  return config;
}

void require_moe_layer(const ConfigReader& config, std::int64_t layer) {
  const auto layers = config.integer("num_hidden_layers", INT64_MAX);
  if (layer < 0 || layer >= layers)
    config.fail(fmt::format("there is no layer {}; the model has {}", layer, layers));
  if (const auto* dense = config.find("mlp_only_layers")) {
    if (!dense->is_array()) config.fail("'mlp_only_layers' is not a list");
    if (std::ranges::find(*dense, json(layer)) != dense->end())
      config.fail(fmt::format("layer {} is dense: mlp_only_layers names it", layer));
  }
  const auto step = config.integer("decoder_sparse_step", 1);
  if (step < 1) config.fail(fmt::format("'decoder_sparse_step' is {}", step));
  if ((layer + 1) % step != 0)
    config.fail(
        fmt::format("layer {} is dense: with decoder_sparse_step {} only every {}th layer has experts", layer,
                    step, step));
}

/// Transformers 5 writes num_local_experts, files on the hub have num_experts; top_k is assay's short name.
std::string name_in_checkpoint(const ConfigReader& config, std::string_view member) {
  if (member == "top_k") return "num_experts_per_tok";
  if (member == "num_experts" && config.find("num_experts") == nullptr) return "num_local_experts";
  return std::string(member);
}

bool flag(const ConfigReader& config, const std::string& name, std::vector<std::string>& remarks) {
  const auto* value = config.find(name);
  if (value != nullptr && !value->is_boolean()) config.fail(fmt::format("'{}' is not a boolean", name));
  if (value == nullptr)
    remarks.push_back(
        fmt::format("config.json has no {}; transformers takes false, and so is done here", name));
  return value != nullptr && value->get<bool>();
}

}  // namespace

MoeConfig read_hf_config(const std::filesystem::path& folder, std::int64_t layer,
                         std::vector<std::string>& remarks) {
  const auto config = open_config(folder);
  MoeConfig moe;
  for_each_member(moe, [&](std::string_view name, auto& member) {
    if constexpr (std::same_as<decltype(member), bool&>)
      member = flag(config, std::string(name), remarks);
    else
      member = config.integer(name_in_checkpoint(config, name));
  });
  if (const auto reason = invalid(moe)) config.fail(*reason);
  require_moe_layer(config, layer);
  if (const auto* act = config.find("hidden_act"); act != nullptr && *act != "silu")
    config.fail(fmt::format("expected hidden_act \"silu\", found {}", act->dump()));
  if (config.find("shared_expert_intermediate_size") != nullptr &&
      config.integer("shared_expert_intermediate_size") > 0)
    remarks.push_back(
        "the block also has a shared expert, which is not part of the routed layer judged here");
  return moe;
}

}  // namespace assay
