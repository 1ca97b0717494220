// Weight gradients in files: float32, and what there was before.
#include <doctest/doctest.h>

#include "golden/golden_file.h"
#include "golden/test_support.h"
#include "harness/contract/error.h"

using namespace assay;
using namespace assay::test;

namespace {

constexpr Field kGradients[] = {Field::d_gate, Field::d_gate_up_proj, Field::d_down_proj};

/// Values that are bf16 (`step` 1), or some that are none.
Tensor floats(Field field, const Sizes& sizes, float step) {
  Tensor tensor(DType::Float32, expected_shape(field, sizes));
  for (std::size_t i = 0; i < tensor.as<float>().size(); ++i)
    tensor.as<float>()[i] = static_cast<float>(i % 64) * step - 7.0f;
  return tensor;
}

constexpr float kFine = 1.0f + 0x1p-20f;

Sample main_gradients(std::string contract, std::string kind, float step) {
  Sample sample = make_sample(kTinyConfig, 2, 3, true);
  sample.golden.kind = std::move(kind);
  sample.golden.contract = std::move(contract);
  for (const Field field : kGradients)
    sample.golden.fields.set(field, floats(field, sample.problem.sizes(), step));
  return sample;
}

GoldenFile round_trip(const TemporaryFolder& folder, const Sample& sample) {
  write_golden(folder / "sample.h5", sample.problem, sample.golden);
  return read_golden(folder / "sample.h5", test_regenerators());
}

bool has_remark(const GoldenFile& file, std::string_view text) {
  return std::ranges::any_of(file.candidate.remarks,
                             [&](const std::string& one) { return contains(one, std::string(text)); });
}

}  // namespace

TEST_SUITE("golden weight gradients") {
  TEST_CASE("float32 gradients come back bit for bit under a contract that keeps them, bf16 values too") {
    const TemporaryFolder folder;
    for (const float step : {1.0f, kFine})
      for (const char* kind : {"golden", "candidate"}) {
        const Sample sample = main_gradients("hf_main_grads", kind, step);
        const auto read = round_trip(folder, sample);
        for (const Field field : kGradients) {
          CHECK(read.candidate.fields.at(field).dtype() == DType::Float32);
          CHECK(same_tensor(read.candidate.fields.at(field), sample.golden.fields.at(field)));
        }
        CHECK(contains(inspect_file(folder / "sample.h5"), "schema_version = 1.2"));
      }
  }

  TEST_CASE("under another contract float32 that holds bf16 is bf16, and more of it is kept for the judge") {
    const TemporaryFolder folder;
    const auto narrow = round_trip(folder, main_gradients("hf", "candidate", 1.0f));
    CHECK(narrow.candidate.fields.at(Field::d_gate).dtype() == DType::BFloat16);
    CHECK(to_float(narrow.candidate.fields.at(Field::d_gate).as<Bf16>()[3]) == -4.0f);
    CHECK(has_remark(narrow, "bfloat16 is stored as float32 with zero low halves"));
    const auto wide = round_trip(folder, main_gradients("hf", "candidate", kFine));
    CHECK(wide.candidate.fields.at(Field::d_gate).dtype() == DType::Float32);
    CHECK(wide.candidate.misstored.empty());
  }

  TEST_CASE("a golden has the type of its contract, or is refused") {
    const TemporaryFolder folder;
    CHECK(contains(input_error([&] { round_trip(folder, main_gradients("hf", "golden", kFine)); }),
                   "expected bfloat16"));
    Sample narrow = make_sample(kTinyConfig, 2, 3, true);
    narrow.golden.contract = "hf_main_grads";
    CHECK(contains(input_error([&] { round_trip(folder, narrow); }), "expected float32"));
  }

  TEST_CASE("gradients of before come back in their type, stored or regenerated, and raise the version") {
    const TemporaryFolder folder;
    Sample sample = make_sample(kTinyConfig, 2, 3, true);
    CHECK_FALSE(round_trip(folder, sample).problem.has_previous());
    CHECK(contains(inspect_file(folder / "sample.h5"), "schema_version = 1.1"));
    const Sizes sizes = sample.problem.sizes();
    sample.problem.previous.set(Field::d_gate, floats(Field::d_gate, sizes, kFine));
    Tensor narrow(DType::BFloat16, expected_shape(Field::d_down_proj, sizes));
    narrow.as<Bf16>()[7].bits = 0x8000;
    sample.problem.previous.set(Field::d_down_proj, std::move(narrow));
    const Generator generator{"gaussian", "natural", 3, 7, expected_shape(Field::d_gate_up_proj, sizes), 1.0};
    sample.problem.previous.set(Field::d_gate_up_proj, test_fill(generator));
    sample.problem.generators[static_cast<std::size_t>(Field::d_gate_up_proj)] = generator;
    const auto read = round_trip(folder, sample);
    for (const Field field : kGradients)
      CHECK(same_tensor(read.problem.previous.at(field), sample.problem.previous.at(field)));
    CHECK(read.problem.generators[static_cast<std::size_t>(Field::d_gate_up_proj)] == generator);
    CHECK(contains(inspect_file(folder / "sample.h5"), "schema_version = 1.2"));

    auto wrong = test_regenerators();
    wrong.tensor = [right = wrong.tensor](Generator other) {
      if (other.stream == 7) other.seed += 1;
      return right(other);
    };
    CHECK(contains(input_error([&] { read_golden(folder / "sample.h5", wrong); }),
                   "/previous/d_gate_up_proj: regenerated, its SHA-256 is"));
  }

  TEST_CASE("gradients of before of another shape or type are refused") {
    const TemporaryFolder folder;
    Sample sample = make_sample(kTinyConfig, 2, 3, true);
    sample.problem.previous.set(Field::d_gate, Tensor(DType::Float32, {5, 3}));
    CHECK(
        contains(input_error([&] { round_trip(folder, sample); }), "d_gate: expected float32 [5, 4], found"));
    sample.problem.previous.set(Field::d_gate, Tensor(DType::Float64, {5, 4}));
    CHECK(contains(input_error([&] { round_trip(folder, sample); }), "found float64"));
  }
}
