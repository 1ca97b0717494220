// Files written are read back bit for bit; what a file claims is checked.
#include <doctest/doctest.h>

#include "golden/golden_file.h"
#include "golden/test_support.h"
#include "harness/contract/error.h"

using namespace assay;
using namespace assay::test;

namespace {

GoldenFile round_trip(const TemporaryFolder& folder, const Sample& sample) {
  write_golden(folder / "sample.h5", sample.problem, sample.golden);
  return read_golden(folder / "sample.h5", test_regenerators());
}

/// The file as it should read: the sample itself.
GoldenFile expected_of(const Sample& sample, const GoldenFile& read) {
  GoldenFile expected{sample.problem, sample.golden, {}, true, read.origins, read.expert_hashes};
  return expected;
}

}  // namespace

TEST_SUITE("golden round trip") {
  TEST_CASE("a golden with everything stored reads back bit for bit") {
    const TemporaryFolder folder;
    auto sample = make_sample(kTinyConfig, 2, 3, true);
    sample.golden.oracle.set(Field::hidden_states, Tensor(DType::Float64, {6, 4}));
    sample.golden.oracle.at(Field::hidden_states).as<double>()[5] = -0.125;
    const auto read = round_trip(folder, sample);
    CHECK(same_file(read, expected_of(sample, read)));
    CHECK(read.origins.at(Field::first_gemm) == "computed");
    CHECK(read.candidate.name == (folder / "sample.h5").string());
  }

  TEST_CASE("all 65536 bfloat16 patterns survive, NaN payloads included") {
    const TemporaryFolder folder;
    auto sample = make_sample({256, 1, 1, 1, true}, 1, 256, true);
    auto input = sample.problem.input.as<Bf16>();
    REQUIRE(input.size() == 65536);
    for (std::size_t i = 0; i < input.size(); ++i) input[i] = {static_cast<std::uint16_t>(i)};
    const auto read = round_trip(folder, sample);
    CHECK(same_tensor(read.problem.input, sample.problem.input));
    CHECK(same_tensor(read.problem.output_gradient, sample.problem.output_gradient));
  }

  TEST_CASE("no tokens is a valid problem") {
    const TemporaryFolder folder;
    const auto sample = make_sample(kTinyConfig, 1, 0, true);
    const auto read = round_trip(folder, sample);
    CHECK(same_file(read, expected_of(sample, read)));
    CHECK(read.candidate.fields.at(Field::first_gemm).shape() == Shape{0, 6});
  }

  TEST_CASE("regenerated inputs and weights come back through the generators, checked expert by expert") {
    const TemporaryFolder folder;
    auto sample = make_sample(kTinyConfig, 1, 2);
    use_generators(sample.problem);
    const auto read = round_trip(folder, sample);
    CHECK(same_file(read, expected_of(sample, read)));
    CHECK(read.expert_hashes.at(Field::down_proj).size() == 5);

    auto wrong = test_regenerators();
    wrong.expert = [right = wrong.expert](const Generator& generator, Field field, std::int64_t expert) {
      return right(generator, field, field == Field::down_proj && expert == 3 ? 2 : expert);
    };
    const auto doubtful = read_golden(folder / "sample.h5", wrong);
    CHECK_NOTHROW(doubtful.problem.experts(Field::down_proj, 2));
    CHECK_NOTHROW(doubtful.problem.experts(Field::gate_up_proj, 3));
    const auto message = input_error([&] { doubtful.problem.experts(Field::down_proj, 3); });
    CHECK(message.find("/weights/down_proj: the regenerated expert 3") != std::string::npos);
  }

  TEST_CASE("known expert hashes are taken over instead of computed") {
    const TemporaryFolder folder;
    auto sample = make_sample(kTinyConfig, 1, 2);
    use_generators(sample.problem);
    write_golden(folder / "a.h5", sample.problem, sample.golden);
    WriteOptions options;
    options.expert_hashes = read_golden(folder / "a.h5", test_regenerators()).expert_hashes;
    sample.problem.experts = [](Field, std::int64_t) -> ExpertMatrix {
      throw InputError("loaded without need");
    };
    write_golden(folder / "b.h5", sample.problem, sample.golden, options);
    CHECK(read_bytes(folder / "a.h5") == read_bytes(folder / "b.h5"));
  }

  TEST_CASE("the same arguments give the same bytes") {
    const TemporaryFolder folder;
    const auto sample = make_sample(kTinyConfig, 2, 3, true);
    write_golden(folder / "a.h5", sample.problem, sample.golden);
    write_golden(folder / "b.h5", sample.problem, sample.golden);
    CHECK(read_bytes(folder / "a.h5") == read_bytes(folder / "b.h5"));
  }

  TEST_CASE("tensors above the chunk size are cut into chunks and come back whole") {
    const TemporaryFolder folder;
    const auto sample = make_sample({96, 1500, 4, 2, false}, 1, 3000);
    const auto read = round_trip(folder, sample);
    CHECK(same_file(read, expected_of(sample, read)));
  }

  TEST_CASE("a candidate may come without inputs and keeps wrong shapes and dtypes for the judge") {
    const TemporaryFolder folder;
    auto sample = make_sample(kTinyConfig, 2, 3);
    sample.golden.kind = "candidate";
    sample.golden.contract = "auto";
    sample.problem.experts = nullptr;
    sample.golden.fields.erase(Field::second_gemm);
    sample.golden.fields.set(Field::first_gemm, Tensor(DType::BFloat16, {12, 3}));
    sample.golden.fields.set(Field::intermediate, Tensor(DType::Float64, {12, 3}));
    const auto read = round_trip(folder, sample);
    CHECK_FALSE(read.has_inputs);
    CHECK_FALSE(read.problem.experts);
    CHECK_FALSE(read.candidate.fields.has(Field::second_gemm));
    CHECK(read.candidate.fields.at(Field::first_gemm).shape() == Shape{12, 3});
    CHECK(read.candidate.fields.at(Field::intermediate).dtype() == DType::Float64);
    CHECK(read.candidate.contract == "auto");
  }
}
