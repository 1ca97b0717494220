// config.json of a checkpoint folder (transformers, configuration_qwen3_moe.py).
#include <algorithm>
#include <array>

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
  json whole;  // where a multimodal checkpoint says what concerns all its models

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
  ConfigReader config{(folder / "config.json").string(), {}, {}};
  constexpr std::size_t kLongest = 1 << 24;
  std::string text;
  try {
    text = file_text(config.path, kLongest);
  } catch (const InputError& error) {
    throw InputError(
        fmt::format("expected a HuggingFace checkpoint in {}, found no config.json that can be read: {}",
                    folder.string(), error.what()));
  }
  std::string twice;
  config.object = parse_json(text, twice);
  if (!config.object.is_object()) config.fail("it is not a JSON object");
  if (!twice.empty()) config.fail(fmt::format("'{}' occurs twice", twice));
  config.whole = config.object;
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

/// Names under which the same number goes in other models' configs.
constexpr std::array<std::array<std::string_view, 2>, 4> kSynonyms = {
    {{"num_experts", "num_local_experts"},
     {"num_experts", "n_routed_experts"},
     {"num_experts_per_tok", "num_experts_per_token"},
     {"norm_topk_prob", "norm_top_k_prob"}}};

/// Keys that make another layer of the same tensors, and the value under which they do not.
struct LayerKey {
  std::string_view key;
  json neutral;
};
const std::array<LayerKey, 11>& layer_keys() {
  static const std::array<LayerKey, 11> keys = {{{"routed_scaling_factor", 1.0},
                                                 {"scoring_func", "softmax"},
                                                 {"moe_router_activation_func", "softmax"},
                                                 {"n_group", 1},
                                                 {"topk_group", 1},
                                                 {"use_expert_bias", false},
                                                 {"moe_router_enable_expert_bias", false},
                                                 {"mlp_bias", false},
                                                 {"moe_apply_router_weight_on_input", false},
                                                 {"swiglu_limit", 0},
                                                 {"quantization_config", nullptr}}};
  return keys;
}

void refuse_another_layer(const ConfigReader& config) {
  for (const auto& [key, neutral] : layer_keys())
    for (const json* object : {&config.object, &config.whole}) {
      const auto found = object->find(key);
      if (found == object->end() || found->is_null() || *found == neutral) continue;
      config.fail(neutral.is_null()
                      ? fmt::format("found {}: only BF16 checkpoints that are not quantised are read", key)
                      : fmt::format("found {} {}, which makes another layer; Qwen3's has {}", key,
                                    json_text(*found), json_text(neutral)));
    }
  for (const auto& [one, other] : kSynonyms) {
    const auto* first = config.find(std::string(one));
    const auto* second = config.find(std::string(other));
    if (first != nullptr && second != nullptr && *first != *second)
      config.fail(fmt::format("{} is {} and {} is {}", one, json_text(*first), other, json_text(*second)));
  }
}

void name_the_model(const ConfigReader& config, std::vector<std::string>& remarks) {
  const auto* type = config.find("model_type");
  if (type == nullptr || (type->is_string() && type->get<std::string>().starts_with("qwen3"))) return;
  remarks.push_back(
      fmt::format("config.json has model_type {}, which is not Qwen3's: the layer is judged as Qwen3's",
                  json_text(*type)));
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
  refuse_another_layer(config);
  name_the_model(config, remarks);
  require_moe_layer(config, layer);
  if (const auto* act = config.find("hidden_act"); act != nullptr && *act != "silu")
    config.fail(fmt::format("expected hidden_act \"silu\", found {}", json_text(*act)));
  if (config.find("shared_expert_intermediate_size") != nullptr &&
      config.integer("shared_expert_intermediate_size") > 0)
    remarks.push_back(
        "the block also has a shared expert, which is not part of the routed layer judged here");
  return moe;
}

}  // namespace assay
