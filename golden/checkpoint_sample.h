// For tests: checkpoint folders as transformers 4 and 5 write them, written by hand.
#pragma once

#include <cstring>
#include <map>
#include <string>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "golden/checkpoint.h"
#include "golden/test_support.h"

namespace assay::test {

inline constexpr MoeConfig kTwelve{6, 2, 12, 3,
                                   true};  // twelve experts: text order would put expert 10 before 2

struct TestTensor {
  Shape shape;
  std::string bytes;
  std::string dtype = "BF16";
};
using Tensors = std::map<std::string, TestTensor>;

/// A safetensors file; `pad` spaces behind the header move the data to another alignment.
inline void write_safetensors(const std::filesystem::path& path, const Tensors& tensors,
                              std::size_t pad = 0) {
  std::string header;
  std::string buffer;
  for (const auto& [name, tensor] : tensors) {
    header += fmt::format(R"({}"{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})",
                          header.empty() ? "{" : ",", name, tensor.dtype, to_string(tensor.shape),
                          buffer.size(), buffer.size() + tensor.bytes.size());
    buffer += tensor.bytes;
  }
  header += '}';
  header.append(pad, ' ');
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  write_bytes(path, bytes + header + buffer);
}

inline std::string text_of(std::span<const Bf16> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

/// The weights that every style of checkpoint here holds.
inline MoeWeights sample_weights() {
  auto sample = make_sample(kTwelve, 1, 1);
  return {kTwelve, sample.problem.gate, sample.problem.experts, {}};
}

inline constexpr const char* kPrefix = "model.layers.3.mlp.";

inline Tensors one_by_one(const MoeWeights& weights) {
  const auto [H, I, E, K, norm] = weights.config;
  Tensors tensors;
  tensors[fmt::format("{}gate.weight", kPrefix)] = {{E, H}, text_of(weights.gate.as<Bf16>())};
  for (std::int64_t e = 0; e < E; ++e) {
    const auto gate_up = text_of(weights.experts(Field::gate_up_proj, e).values);
    const auto half = gate_up.size() / 2;
    tensors[fmt::format("{}experts.{}.gate_proj.weight", kPrefix, e)] = {{I, H}, gate_up.substr(0, half)};
    tensors[fmt::format("{}experts.{}.up_proj.weight", kPrefix, e)] = {{I, H}, gate_up.substr(half)};
    tensors[fmt::format("{}experts.{}.down_proj.weight", kPrefix, e)] = {
        {H, I}, text_of(weights.experts(Field::down_proj, e).values)};
  }
  return tensors;
}

inline Tensors fused(const MoeWeights& weights, const char* suffix) {
  const auto [H, I, E, K, norm] = weights.config;
  Tensors tensors;
  tensors[fmt::format("{}gate.weight", kPrefix)] = {{E, H}, text_of(weights.gate.as<Bf16>())};
  TestTensor gate_up{{E, 2 * I, H}, ""};
  TestTensor down{{E, H, I}, ""};
  for (std::int64_t e = 0; e < E; ++e) {
    gate_up.bytes += text_of(weights.experts(Field::gate_up_proj, e).values);
    down.bytes += text_of(weights.experts(Field::down_proj, e).values);
  }
  tensors[fmt::format("{}experts.gate_up_proj{}", kPrefix, suffix)] = gate_up;
  tensors[fmt::format("{}experts.down_proj{}", kPrefix, suffix)] = down;
  return tensors;
}

inline const std::string kConfig =
    R"({"hidden_size":6,"moe_intermediate_size":2,"num_experts":12,"num_experts_per_tok":3,)"
    R"("norm_topk_prob":true,"num_hidden_layers":5,"hidden_act":"silu"})";

inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

inline void write_single(const TemporaryFolder& folder, const Tensors& tensors,
                         const std::string& config = kConfig, std::size_t pad = 0) {
  write_bytes(folder / "config.json", config);
  write_safetensors(folder / "model.safetensors", tensors, pad);
}

inline std::string complaint(const Tensors& tensors, const std::string& config = kConfig,
                             std::int64_t layer = 3) {
  const TemporaryFolder folder;
  write_single(folder, tensors, config);
  return input_error([&] { extract_hf_weights(folder.path(), layer); });
}

}  // namespace assay::test
