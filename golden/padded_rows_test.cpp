#include "golden/padded_rows.h"

#include <algorithm>
#include <array>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "golden/foreign_file.h"
#include "golden/test_support.h"

using namespace assay;
using namespace assay::test;

namespace {

constexpr MoeConfig kConfig{4, 2, 4, 2, true};
constexpr Sizes kSizes{kConfig, 3};  // 6 slots

/// Experts 1, 3 | 1, 0 | 3, 1: rows 1, 3, 0, 2.
Tensor selected() {
  Tensor tensor(DType::Int32, {3, 2});
  std::ranges::copy(std::array{1, 3, 1, 0, 3, 1}, tensor.as<std::int32_t>().begin());
  return tensor;
}

/// Rows numbered from 1 in the order of experts, -1 between them: one tile of four each of experts 0, 1
/// and 3.
Tensor padded(std::int64_t behind = 0) {
  const std::vector<std::int32_t> rows = {1, -1, -1, -1, 2, 3, 4, -1, 5, 6, -1, -1};
  Tensor tensor(DType::Int32, {12 + behind});
  std::ranges::fill(tensor.as<std::int32_t>(), -1);
  std::ranges::copy(rows, tensor.as<std::int32_t>().begin());
  return tensor;
}

/// The same with the bits of bf16 in each of `width` columns.
Tensor padded_bf16(std::int64_t width) {
  const Tensor rows = padded();
  Tensor tensor(DType::BFloat16, {12, width});
  for (std::size_t i = 0; i < tensor.as<Bf16>().size(); ++i)
    tensor.as<Bf16>()[i].bits =
        static_cast<std::uint16_t>(rows.as<std::int32_t>()[i / static_cast<std::size_t>(width)]);
  return tensor;
}

std::vector<std::int32_t> gathered(const Candidate& candidate) {
  const auto values = candidate.fields.at(Field::gather_indices).as<std::int32_t>();
  return {values.begin(), values.end()};
}

const std::vector<std::int32_t> kRows = {1, 2, 3, 4, 5, 6};

}  // namespace

TEST_SUITE("golden padded rows") {
  TEST_CASE(
      "padding is left out between experts, behind the last one, and for one without rows there is none") {
    for (const std::int64_t behind : {0, 5}) {
      Candidate candidate;
      candidate.fields.set(Field::selected_experts, selected());
      candidate.fields.set(Field::gather_indices, padded(behind));
      candidate.fields.set(Field::second_gemm, padded_bf16(4));
      leave_padding_out(candidate, kSizes, 4);
      CHECK(gathered(candidate) == kRows);
      const Tensor& rows = candidate.fields.at(Field::second_gemm);
      REQUIRE(rows.shape() == Shape{6, 4});
      for (std::size_t i = 0; i < 24; ++i) CHECK(rows.as<Bf16>()[i].bits == i / 4 + 1);
      REQUIRE(candidate.remarks.size() == 1);
      CHECK(candidate.remarks[0] ==
            (behind == 0
                 ? "row_alignment 4: 6 of 12 rows in expert order are padding, which is not judged"
                 : "row_alignment 4: 11 of 17 rows in expert order are padding, which is not judged"));
    }
  }

  TEST_CASE("the last expert's padding may be missing, and the counts may say how many rows there are") {
    Candidate candidate;
    Tensor counts(DType::Int32, {4});
    std::ranges::copy(std::array{1, 3, 0, 2}, counts.as<std::int32_t>().begin());
    candidate.fields.set(Field::token_counts_by_expert, counts);
    Tensor rows(DType::Int32, {10});
    std::ranges::copy(padded().as<std::int32_t>().first(10), rows.as<std::int32_t>().begin());
    candidate.fields.set(Field::gather_indices, rows);
    leave_padding_out(candidate, kSizes, 4);
    CHECK(gathered(candidate) == kRows);
  }

  TEST_CASE("fewer rows than the alignment asks for are that field's verdict, in one sentence") {
    Candidate candidate;
    candidate.fields.set(Field::selected_experts, selected());
    candidate.fields.set(Field::gather_indices, padded());
    candidate.fields.set(Field::second_gemm, Tensor(DType::BFloat16, {9, 4}));
    leave_padding_out(candidate, kSizes, 4);
    CHECK(gathered(candidate) == kRows);
    CHECK_FALSE(candidate.fields.has(Field::second_gemm));
    CHECK(candidate.misstored.at(Field::second_gemm).verdict == Verdict::WrongShape);
    CHECK(candidate.misstored.at(Field::second_gemm).sentence ==
          "expected at least 10 rows, each expert's from a multiple of 4 on, found 9");
  }

  TEST_CASE("without a field that says how many rows an expert has nothing can be read") {
    for (const bool wrong_counts : {false, true}) {
      Candidate candidate;
      Tensor counts(DType::Int32, {4});
      std::ranges::copy(std::array{4, 4, 0, 4}, counts.as<std::int32_t>().begin());  // padded ones
      if (wrong_counts) candidate.fields.set(Field::token_counts_by_expert, counts);
      candidate.fields.set(Field::gather_indices, padded());
      leave_padding_out(candidate, kSizes, 4);
      CHECK(candidate.misstored.at(Field::gather_indices).sentence ==
            "row_alignment 4 is declared, and neither selected_experts nor token_counts_by_expert says how "
            "many "
            "rows an expert has");
    }
  }

  TEST_CASE("an alignment of one leaves everything as it is") {
    Candidate candidate;
    candidate.fields.set(Field::gather_indices, padded());
    leave_padding_out(candidate, kSizes, 1);
    CHECK(candidate.fields.at(Field::gather_indices).shape() == Shape{12});
    CHECK(candidate.remarks.empty());
  }

  TEST_CASE("a file says so by an attribute of its root, 1 to 65536, and a golden may not") {
    const TemporaryFolder folder;
    Sample sample = make_sample(kConfig, 1, 3);
    sample.golden.kind = "candidate";
    sample.golden.fields.set(Field::selected_experts, selected());
    const Tensor right = sample.golden.fields.at(Field::second_gemm);
    Tensor wide(DType::BFloat16, {12, kConfig.hidden_size});
    const std::size_t width = 4;
    const std::size_t places[] = {0, 4, 5, 6, 8, 9};
    for (std::size_t r = 0; r < 6; ++r)
      std::ranges::copy(right.as<Bf16>().subspan(r * width, width),
                        wide.as<Bf16>().subspan(places[r] * width, width).begin());
    sample.golden.fields.set(Field::second_gemm, wide);
    for (const Field field : {Field::gather_indices, Field::first_gemm, Field::intermediate})
      sample.golden.fields.erase(field);
    const auto read = [&](const char* name, std::int64_t alignment) {
      write_golden(folder / name, sample.problem, sample.golden);
      {
        const Surgery surgery(folder / name);
        hdf5::write_int64(surgery.file, "row_alignment", alignment);
        H5Adelete(surgery.file.get(), "content_sha256");
      }
      return read_here(folder / name);
    };
    const GoldenFile file = read("four.h5", 4);
    CHECK(same_tensor(file.candidate.fields.at(Field::second_gemm), right));
    CHECK(contains(read("eight.h5", 8).candidate.misstored.at(Field::second_gemm).sentence,
                   "expected at least 18 rows, each expert's from a multiple of 8 on, found 12"));
    for (const std::int64_t wrong : {-1, 0})
      CHECK(contains(input_error([&] { read("small.h5", wrong); }),
                     fmt::format("the root attribute 'row_alignment' must be at least 1, found {}", wrong)));
    const std::string most =
        "the root attribute 'row_alignment' must be 1 of a golden and at most 65536 of a candidate";
    CHECK(contains(input_error([&] { read("large.h5", 65537); }), most + ", found 65537"));
    sample = make_sample(kConfig, 1, 3);
    CHECK(contains(input_error([&] { read("golden.h5", 4); }), most + ", found 4"));
    CHECK(read("one.h5", 1).candidate.kind == "golden");
  }
}
