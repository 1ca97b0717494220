// Checkpoint folders as transformers 4 and 5 write them, written here by hand.
#include <doctest/doctest.h>

#include <fmt/format.h>

#include "golden/checkpoint_sample.h"

using namespace assay;
using namespace assay::test;

TEST_SUITE("golden checkpoint") {
  TEST_CASE("experts one by one are read in the order of their numbers, aligned or not") {
    const auto expected = sample_weights();
    for (const std::size_t pad : {0u, 1u, 2u, 3u}) {
      const TemporaryFolder folder;
      write_single(folder, one_by_one(expected), kConfig, pad);
      const auto weights = extract_hf_weights(folder.path(), 3);
      CHECK(weights.config == kTwelve);
      CHECK_FALSE(check_weights(weights, expected).has_value());
    }
  }

  TEST_CASE("fused experts are read with and without the .weight suffix") {
    const auto expected = sample_weights();
    for (const char* suffix : {"", ".weight"})
      for (const std::size_t pad : {0u, 1u}) {
        const TemporaryFolder folder;
        write_single(folder, fused(expected, suffix), kConfig, pad);
        CHECK_FALSE(check_weights(extract_hf_weights(folder.path(), 3), expected).has_value());
      }
  }

  TEST_CASE("a sharded checkpoint is read through its index, and only the shards of the layer are opened") {
    const TemporaryFolder folder;
    const auto expected = sample_weights();
    const auto all = one_by_one(expected);
    Tensors shards[2];
    std::string map = R"("lm_head.weight":"missing.safetensors")";
    int turn = 0;
    for (const auto& [name, tensor] : all) {
      shards[turn % 2][name] = tensor;
      map += fmt::format(R"(,"{}":"model-{}.safetensors")", name, turn++ % 2);
    }
    write_bytes(folder / "config.json", kConfig);
    write_safetensors(folder / "model-0.safetensors", shards[0]);
    write_safetensors(folder / "model-1.safetensors", shards[1]);
    const auto write_index = [&](const std::string& entries) {
      write_bytes(folder / "model.safetensors.index.json",
                  R"({"metadata":{},"weight_map":{)" + entries + "}}");
    };
    write_index(map);
    CHECK_FALSE(check_weights(extract_hf_weights(folder.path(), 3), expected).has_value());

    const auto message = [&] { return input_error([&] { extract_hf_weights(folder.path(), 3); }); };
    write_index(
        replaced(map, "experts.10.down_proj.weight\":\"model-0", "experts.10.down_proj.weight\":\"model-1"));
    CHECK(
        contains(message(), "the index places tensor 'model.layers.3.mlp.experts.10.down_proj.weight' here"));
    write_index(map + R"(,"x":"../elsewhere.safetensors")");
    CHECK(contains(message(), "which is no file name"));
    write_bytes(folder / "model.safetensors.index.json", "[]");
    CHECK(contains(message(), "weight_map"));
    write_index(map);
    std::filesystem::remove(folder / "model-1.safetensors");
    CHECK(contains(message(), "model-1.safetensors"));
  }

  TEST_CASE(
      "config.json is read under both names for the experts, and norm_topk_prob is false where it is "
      "absent") {
    const TemporaryFolder folder;
    const auto tensors = one_by_one(sample_weights());
    write_single(folder, tensors, replaced(kConfig, "num_experts\"", "num_local_experts\""));
    CHECK(extract_hf_weights(folder.path(), 3).config == kTwelve);
    write_single(folder, tensors, replaced(kConfig, R"("norm_topk_prob":true,)", ""));
    const auto weights = extract_hf_weights(folder.path(), 3);
    CHECK_FALSE(weights.config.norm_topk_prob);
    REQUIRE(weights.remarks.size() == 1);
    CHECK(contains(weights.remarks[0], "no norm_topk_prob"));
    write_single(folder, tensors, R"({"model_type":"x","text_config":)" + kConfig + "}");
    CHECK(extract_hf_weights(folder.path(), 3).config == kTwelve);
    write_single(folder, tensors, replaced(kConfig, "{", R"({"shared_expert_intermediate_size":512,)"));
    CHECK(contains(extract_hf_weights(folder.path(), 3).remarks.at(0), "shared expert"));
  }

  TEST_CASE("a dense layer, an absent layer or another activation is one sentence") {
    const auto tensors = one_by_one(sample_weights());
    CHECK(contains(complaint(tensors, replaced(kConfig, "{", R"({"mlp_only_layers":[1,3],)")),
                   "layer 3 is dense: mlp_only_layers names it"));
    CHECK(contains(complaint(tensors, replaced(kConfig, "{", R"({"decoder_sparse_step":3,)")),
                   "layer 3 is dense: with decoder_sparse_step 3"));
    CHECK(complaint(tensors, replaced(kConfig, "{", R"({"decoder_sparse_step":2,"mlp_only_layers":[],)"))
              .empty());
    CHECK(contains(complaint(tensors, kConfig, 5), "there is no layer 5; the model has 5"));
    CHECK(contains(complaint(tensors, kConfig, -1), "there is no layer -1"));
    CHECK(contains(complaint(tensors, kConfig, 2), "layer 2 has no router"));
    CHECK(contains(complaint(tensors, replaced(kConfig, "silu", "gelu")),
                   "expected hidden_act \"silu\", found \"gelu\""));
    CHECK(contains(complaint(tensors, replaced(kConfig, R"("num_experts":12,)", "")),
                   "'num_local_experts' is missing"));
    CHECK(contains(complaint(tensors, replaced(kConfig, "\"hidden_size\":6", "\"hidden_size\":\"6\"")),
                   "'hidden_size' is not an integer"));
    CHECK(contains(complaint(tensors, "{"), "not a JSON object"));
  }

  TEST_CASE("tensors that lack, have another dtype or shape, or are too many are named") {
    const auto good = one_by_one(sample_weights());
    const std::string up = "model.layers.3.mlp.experts.11.up_proj.weight";
    auto tensors = good;
    tensors.erase(up);
    CHECK(contains(complaint(tensors), "has no tensor '" + up + "'"));
    tensors = good;
    tensors[up].dtype = "F16";
    CHECK(contains(complaint(tensors), "tensor '" + up + "' is F16; only BF16 checkpoints are supported"));
    tensors = good;
    tensors[up].shape = {6, 2};
    CHECK(contains(complaint(tensors), "tensor '" + up + "': expected shape [2, 6], found [6, 2]"));
    CHECK(contains(complaint(good, replaced(kConfig, ":12", ":11")),
                   "gate.weight': expected shape [11, 6], found [12, 6]"));
    tensors = good;
    tensors["model.layers.3.mlp.experts.12.up_proj.weight"] = tensors[up];
    CHECK(contains(complaint(tensors), "experts.12.up_proj.weight', config.json has 12 experts"));
    tensors = fused(sample_weights(), "");
    tensors["model.layers.3.mlp.experts.gate_up_proj"].shape = {12, 6, 4};
    CHECK(contains(complaint(tensors), "stored transposed"));
  }

  TEST_CASE("a folder without files says which") {
    const TemporaryFolder folder;
    const auto message = [&] { return input_error([&] { extract_hf_weights(folder.path(), 3); }); };
    CHECK(contains(message(), "config.json"));
    write_bytes(folder / "config.json", kConfig);
    CHECK(contains(message(), "neither model.safetensors nor model.safetensors.index.json"));
    CHECK(contains(input_error([&] { extract_hf_weights(folder / "none", 3); }), "is not a folder"));
  }

  TEST_CASE("check_weights names the first difference with both bit patterns") {
    const auto first = sample_weights();
    CHECK_FALSE(check_weights(first, first).has_value());
    auto second = first;
    second.experts = [experts = first.experts](Field field, std::int64_t expert) {
      auto matrix = experts(field, expert);
      if (field != Field::down_proj || expert < 7) return matrix;
      auto copy = std::make_shared<std::vector<Bf16>>(matrix.values.begin(), matrix.values.end());
      (*copy)[5] = {0x3f80};
      return ExpertMatrix{*copy, copy};
    };
    const auto difference = check_weights(first, second);
    REQUIRE(difference.has_value());
    CHECK(difference->field == Field::down_proj);
    CHECK(difference->expert == 7);
    CHECK(difference->row == 2);  // [6, 2]: element 5
    CHECK(difference->col == 1);
    CHECK(contains(to_string(*difference), "down_proj differs first at expert 7, row 2, col 1: 0x"));
    CHECK(contains(to_string(*difference), "against 0x3f80 (1)"));

    // +0 and -0 are equal numbers and different bits; a NaN is equal to itself.
    auto third = first;
    third.gate.as<Bf16>()[0] = {0x0000};
    auto fourth = first;
    fourth.gate.as<Bf16>()[0] = {0x8000};
    REQUIRE(check_weights(third, fourth).has_value());
    CHECK(check_weights(third, fourth)->field == Field::gate);
    third.gate.as<Bf16>()[0] = fourth.gate.as<Bf16>()[0] = {0x7fc1};
    CHECK_FALSE(check_weights(third, fourth).has_value());
    fourth.config.hidden_size = 8;
    CHECK(contains(input_error([&] { check_weights(third, fourth); }), "different sizes"));
  }

  TEST_CASE("from_hf makes a problem of a layer and an input") {
    const TemporaryFolder folder;
    write_single(folder, one_by_one(sample_weights()));
    const auto problem = from_hf(folder.path(), 3, Tensor(DType::BFloat16, {2, 4, 6})).problem;
    CHECK(problem.batch == 2);
    CHECK(problem.sequence == 4);
    CHECK(problem.input.shape() == Shape{8, 6});
    CHECK(problem.name == folder.path().filename().string() + " layer 3");
    CHECK(problem.experts(Field::gate_up_proj, 11).values.size() == 24);
    CHECK(from_hf(folder.path(), 3, Tensor(DType::BFloat16, {0, 6})).problem.sizes().tokens == 0);
    CHECK(contains(input_error([&] { from_hf(folder.path(), 3, Tensor(DType::BFloat16, {8, 5})); }),
                   "found bfloat16 [8, 5]"));
    CHECK(contains(input_error([&] { from_hf(folder.path(), 3, Tensor(DType::Float64, {8, 6})); }),
                   "found float64 [8, 6]"));
  }
}
