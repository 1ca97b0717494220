// Fields held by their hashes: written, read, refused when they do not fit, and read as the exporter wrote
// them.
#include <doctest/doctest.h>

#include <fmt/format.h>

#include "golden/golden_file.h"
#include "golden/held_tensor.h"
#include "golden/sha256.h"
#include "golden/test_support.h"

using namespace assay;
using namespace assay::test;

namespace {

/// The field of the sample moved from its tensors to what is held, with these rows.
void hold(Sample& sample, Field field, const std::vector<HeldRows>& stored) {
  auto held = hold(field, sample.golden.fields.at(field), stored);
  sample.golden.fields.erase(field);
  sample.golden.held.push_back(std::move(held));
}

Sample held_sample() {
  auto sample = make_sample(kTinyConfig, 2, 3, true);
  hold(sample, Field::d_down_proj, {{0, 2}, {8, 1}});  // [5, 4, 3]: rows 0, 1 of expert 0, row 0 of expert 2
  hold(sample, Field::d_gate_up_proj, {});
  hold(sample, Field::d_gate, {{1, 4}});
  return sample;
}

std::string refused(const std::function<void(HeldField&)>& spoil) {
  const TemporaryFolder folder;
  auto sample = held_sample();
  spoil(sample.golden.held[0]);
  return input_error([&] { write_golden(folder / "g.h5", sample.problem, sample.golden); });
}

}  // namespace

TEST_SUITE("golden held") {
  TEST_CASE("each part is hashed by itself, and the rows are the tensor's") {
    const auto tensor =
        make_sample(kTinyConfig, 2, 3, true).golden.fields.at(Field::d_down_proj);  // [5, 4, 3]
    const auto held = hold(Field::d_down_proj, tensor, {{0, 2}, {8, 1}});
    REQUIRE(held.sha256.size() == 5);
    CHECK(held.sha256[2] == sha256_hex(std::as_bytes(tensor.as<Bf16>().subspan(24, 12))));
    CHECK(held.rows.shape() == Shape{3, 3});
    CHECK(std::ranges::equal(held.rows.as<Bf16>().subspan(6), tensor.as<Bf16>().subspan(24, 3)));
  }

  TEST_CASE("the stored rows are the exporter's choice: the fullest expert's and an idle one's") {
    using Ranges = std::vector<HeldRows>;
    const std::vector<std::int32_t> counts = {1, 0, 4, 4, 0};
    CHECK(rows_to_store({5, 6, 3}, counts, 2) == Ranges{{6, 2}, {12, 2}});
    CHECK(rows_to_store({5, 6, 3}, counts, 32) == Ranges{{6, 6}, {12, 6}});
    CHECK(rows_to_store({2, 6, 3}, std::vector<std::int32_t>{1, 1}, 2) == Ranges{{0, 2}});
    CHECK(rows_to_store({2, 6, 3}, std::vector<std::int32_t>{0, 0}, 2) == Ranges{{0, 2}});
    CHECK(rows_to_store({7, 3}, counts, 4) == Ranges{{0, 4}});
    CHECK(rows_to_store({0, 3}, counts, 4).empty());
  }

  TEST_CASE("hashes, ranges and rows read back as they were written") {
    const TemporaryFolder folder;
    const auto sample = held_sample();
    WriteOptions options;
    options.origins[Field::d_gate] = "captured";
    write_golden(folder / "g.h5", sample.problem, sample.golden, options);
    const auto read = read_golden(folder / "g.h5", test_regenerators());
    CHECK(same_file(read, {sample.problem, sample.golden, {}, true, read.origins, read.expert_hashes}));
    CHECK(read.origins.at(Field::d_gate) == "captured");
    CHECK_FALSE(read.candidate.fields.has(Field::d_down_proj));
    REQUIRE(read.candidate.held_field(Field::d_down_proj) != nullptr);
    CHECK(read.candidate.held_field(Field::d_down_proj)->sha256.size() == 5);
    CHECK(read.candidate.held_field(Field::d_second_gemm) == nullptr);
    CHECK(contains(inspect_file(folder / "g.h5"), "content hash: ok"));
    CHECK(contains(inspect_file(folder / "g.h5"), "/backward/d_gate  held by its hashes:"));
  }

  TEST_CASE("a forward field may be held, and the golden is whole; [B, L, H] is what the file says") {
    const TemporaryFolder folder;
    auto sample = make_sample(kTinyConfig, 2, 3);
    hold(sample, Field::hidden_states, {{0, 1}});
    write_golden(folder / "g.h5", sample.problem, sample.golden);
    CHECK(contains(inspect_file(folder / "g.h5"), "shape = [2, 3, 4]"));
    const auto read = read_golden(folder / "g.h5", test_regenerators());
    CHECK(read.candidate.held_field(Field::hidden_states)->shape == Shape{6, 4});
  }

  TEST_CASE("a flip of any byte is an error or changes nothing") {
    const TemporaryFolder folder;
    auto sample = make_sample({2, 1, 2, 1, true}, 1, 2);
    sample.golden.kind = "candidate";
    const auto gradient = make_sample({2, 1, 2, 1, true}, 1, 2, true).golden.fields.at(Field::d_down_proj);
    for (const auto& field : kFields) sample.golden.fields.erase(field.id);
    sample.golden.fields.set(Field::d_down_proj, gradient);
    sample.problem.experts = nullptr;
    hold(sample, Field::d_down_proj, {{1, 2}});
    const auto path = folder / "g.h5";
    write_golden(path, sample.problem, sample.golden);
    const auto bytes = read_bytes(path);
    const auto intact = read_golden(path, test_regenerators());
    int reported = 0;
    int changed = 0;
    for (std::size_t at = 0; at < bytes.size(); ++at) {
      auto flipped = bytes;
      flipped[at] = static_cast<char>(flipped[at] ^ 1);
      write_bytes(path, flipped);
      const auto message = input_error([&] {
        const auto read = read_here(path);
        changed += !same_file(intact, read);
      });
      reported += !message.empty();
    }
    CHECK(changed == 0);
    CHECK(reported > 1000);
  }

  TEST_CASE("what does not fit itself is refused when it is written") {
    CHECK(contains(refused([](HeldField& h) { h.sha256.pop_back(); }),
                   "d_down_proj: expected 5 hashes, found 4"));
    CHECK(contains(refused([](HeldField& h) { h.shape = {5, 3, 4}; }), "expected rows as bfloat16 [3, 4]"));
    CHECK(contains(refused([](HeldField& h) { std::swap(h.stored[0], h.stored[1]); }),
                   "first_rows must ascend within 20 rows, found [0, 2]"));
    CHECK(contains(refused([](HeldField& h) { h.stored[1] = {20, 1}; }), "found [20, 1]"));
    CHECK(contains(refused([](HeldField& h) { h.stored.pop_back(); }),
                   "expected rows as bfloat16 [2, 3], found bfloat16 [3, 3]"));
    CHECK(contains(refused([](HeldField& h) { h.rows = Tensor(DType::Float64, {3, 3}); }),
                   "found float64 [3, 3]"));
    CHECK(contains(refused([](HeldField& h) { h.field = Field::gate; }),
                   "gate is held by its hashes and present, or given"));
    const TemporaryFolder folder;
    auto sample = held_sample();
    sample.golden.fields.set(Field::d_gate, Tensor(DType::BFloat16, {5, 4}));
    CHECK(contains(input_error([&] { write_golden(folder / "g.h5", sample.problem, sample.golden); }),
                   "d_gate is held by its hashes and present"));
  }
}
