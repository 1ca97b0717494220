// Checkpoints taken for what they are not: refused where the layer would be another, told where it is not.
#include <doctest/doctest.h>

#include <fmt/ranges.h>

#include "golden/checkpoint_sample.h"

using namespace assay;
using namespace assay::test;

namespace {

std::string with(const std::string& member) { return replaced(kConfig, "{", "{" + member + ","); }

std::string remarks(const Tensors& tensors, const std::string& config = kConfig) {
  const TemporaryFolder folder;
  write_single(folder, tensors, config);
  return fmt::format("{}", fmt::join(extract_hf_weights(folder.path(), 3).remarks, "; "));
}

/// A tensor of zeros below the block's prefix.
Tensors beside(Tensors tensors, const std::string& name, const Shape& shape) {
  tensors[kPrefix + name] = {shape, std::string(static_cast<std::size_t>(element_count(shape)) * 2, '\0')};
  return tensors;
}

}  // namespace

TEST_SUITE("golden checkpoint") {
  TEST_CASE("two layouts of the experts must hold the same bits") {
    auto both = one_by_one(sample_weights());
    both.merge(fused(sample_weights(), ""));
    CHECK(remarks(both) == "the checkpoint has its experts in two layouts, bit for bit the same");
    auto& bytes = both[fmt::format("{}experts.7.down_proj.weight", kPrefix)].bytes;
    bytes[3] = static_cast<char>(bytes[3] ^ 1);
    CHECK(contains(complaint(both), "fused and one by one, and down_proj of expert 7 differs"));
    auto suffixes = fused(sample_weights(), "");
    suffixes.merge(fused(sample_weights(), ".weight"));
    CHECK(contains(remarks(suffixes), "two layouts"));
  }

  TEST_CASE("a layer below two prefixes is none that could be named") {
    auto tensors = one_by_one(sample_weights());
    tensors["layers.3.mlp.gate.weight"] = tensors[fmt::format("{}gate.weight", kPrefix)];
    CHECK(contains(complaint(tensors), "has layer 3 twice, below 'model.layers.3.mlp.' and 'layers.3.mlp.'"));
  }

  TEST_CASE("tensors that would change the layer are refused, others are told") {
    const auto good = one_by_one(sample_weights());
    for (const char* name :
         {"gate.bias", "gate.e_score_correction_bias", "expert_bias", "experts.3.up_proj.bias",
          "experts.3.up_proj.weight_scale_inv", "experts.gate_up_proj_bias", "down_scales"}) {
      const auto said = complaint(beside(good, name, {12}));
      CAPTURE(name);
      CHECK(contains(said, fmt::format("'{}{}', which changes the layer", kPrefix, name)));
    }
    CHECK(contains(remarks(beside(good, "shared_expert.up_proj.weight", {2, 6})),
                   "1 tensors of a shared expert"));
    CHECK(contains(remarks(beside(good, "notes", {1})),
                   "1 tensor of the block was not read: model.layers.3.mlp.notes"));
    CHECK(remarks(good).empty());
  }

  TEST_CASE("keys that would change the layer are refused, whatever part of the config has them") {
    const auto good = one_by_one(sample_weights());
    CHECK(contains(complaint(good, with(R"("routed_scaling_factor":2.5)")),
                   "found routed_scaling_factor 2.5, which makes another layer; Qwen3's has 1.0"));
    CHECK(contains(complaint(good, with(R"("scoring_func":"sigmoid")")), "scoring_func \"sigmoid\""));
    CHECK(contains(complaint(good, with(R"("n_group":4)")), "n_group 4"));
    CHECK(contains(complaint(good, with(R"("quantization_config":{"bits":8})")), "not quantised"));
    CHECK(contains(complaint(good, R"({"quantization_config":{},"text_config":)" + kConfig + "}"),
                   "not quantised"));
    CHECK(remarks(good, with(R"("routed_scaling_factor":1,"n_group":1,"quantization_config":null)")).empty());
  }

  TEST_CASE("two counts must agree, and no key comes twice") {
    const auto good = one_by_one(sample_weights());
    CHECK(contains(complaint(good, with(R"("num_local_experts":8)")),
                   "num_experts is 12 and num_local_experts is 8"));
    CHECK(complaint(good, with(R"("num_local_experts":12)")).empty());
    CHECK(contains(complaint(good, with(R"("num_experts":8)")), "'num_experts' occurs twice"));
  }

  TEST_CASE("another model's name is told") {
    const auto good = one_by_one(sample_weights());
    CHECK(contains(remarks(good, with(R"("model_type":"olmoe")")),
                   "model_type \"olmoe\", which is not Qwen3's"));
    CHECK(remarks(good, with(R"("model_type":"qwen3_moe")")).empty());
  }

  TEST_CASE("a tensor in two files, or in a file and not in the index, is refused") {
    const TemporaryFolder folder;
    const auto all = one_by_one(sample_weights());
    const std::string gate = fmt::format("{}gate.weight", kPrefix);
    write_bytes(folder / "config.json", kConfig);
    write_safetensors(folder / "a.safetensors", all);
    write_safetensors(folder / "b.safetensors", {{"model.norm.weight", {{1}, "ab"}}, {gate, all.at(gate)}});
    std::string map = R"("model.norm.weight":"b.safetensors")";
    for (const auto& [name, tensor] : all) map += fmt::format(R"(,"{}":"a.safetensors")", name);
    const auto write_index = [&](const std::string& entries) {
      write_bytes(folder / "model.safetensors.index.json", R"({"weight_map":{)" + entries + "}}");
    };
    const auto said = [&] { return input_error([&] { extract_hf_weights(folder.path(), 3); }); };
    write_index(map);
    CHECK(contains(said(), "tensor '" + gate + "' lies in a.safetensors and in b.safetensors"));
    write_safetensors(folder / "b.safetensors", {{"model.norm.weight", {{1}, "ab"}}});
    CHECK(said().empty());
    write_safetensors(folder / "b.safetensors", {{"model.norm.weight", {{1}, "ab"}},
                                                 {std::string(kPrefix) + "gate.bias", {{1}, "ab"}}});
    CHECK(contains(said(), "gate.bias', which the index does not name"));
    write_safetensors(folder / "b.safetensors", {{"model.norm.weight", {{1}, "ab"}}});
    write_index(map + R"(,"model.norm.weight":"a.safetensors")");
    CHECK(contains(said(), "the name 'model.norm.weight' occurs twice"));
    write_index(map);
    write_safetensors(folder / "model.safetensors", all);
    CHECK(contains(said(), "expected one of the two"));
  }

  TEST_CASE("a file that is cut short after it was opened is one sentence, from any reader") {
    const TemporaryFolder folder;
    write_single(folder, one_by_one(sample_weights()));
    const auto weights = extract_hf_weights(folder.path(), 3);
    CHECK(weights.experts(Field::down_proj, 11).values.size() == 12);
    std::filesystem::resize_file(folder / "model.safetensors", 4096);
    CHECK(contains(input_error([&] { weights.experts(Field::gate_up_proj, 11); }),
                   "model.safetensors ends before byte"));
  }
}
