// Many claims, each just below its own limit.
#include <doctest/doctest.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "golden/claimed_sizes.h"
#include "golden/described_golden.h"
#include "golden/foreign_file.h"
#include "golden/test_support.h"

using namespace assay;
using namespace assay::test;

namespace {

constexpr MoeConfig kConfig{2, 1, 2, 2, true};

/// Zeros, deflated: a thousand times as many bytes as in the file.
void write_zeros(const Foreign& foreign, const char* path, std::int64_t elements, hid_t type = H5T_STD_I8LE) {
  const hdf5::Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  const auto extent = static_cast<hsize_t>(elements);
  const hsize_t chunk = hsize_t{1} << 20;
  H5Pset_chunk(creation.get(), 1, &chunk);
  H5Pset_deflate(creation.get(), 4);
  const hdf5::Handle space(H5Screate_simple(1, &extent, nullptr), H5Sclose);
  const hdf5::Handle made(
      H5Dcreate2(foreign.file.get(), path, type, space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT),
      H5Dclose);
  const std::vector<char> zeros(static_cast<std::size_t>(elements) * H5Tget_size(type));
  REQUIRE(H5Dwrite(made.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros.data()) >= 0);
}

}  // namespace

TEST_SUITE("golden claimed sizes") {
  TEST_CASE("tensors that fit one by one and not together are refused before the one too many is read") {
    const TemporaryFolder folder;
    {
      Foreign foreign(folder / "f.h5", "candidate", kConfig, 1, 2);
      Surgery surgery(folder / "f.h5");
      const std::vector<std::uint16_t> zeros(4);
      for (const char* name : {"hidden_states", "router_logits", "topk_weights"})
        surgery.add(fmt::format("/forward/{}", name).c_str(), hdf5::bf16_type().get(), {2, 2}, zeros.data());
    }
    const auto read = [&](std::uint64_t memory) {
      return input_error([&] { golden_of(hdf5::describe_file(folder / "f.h5"), "f.h5", {}, memory); });
    };
    CHECK(read(24) == "");  // three of 2 x 2 bfloat16
    CHECK(contains(read(23),
                   "f.h5: /forward/topk_weights of shape [2, 2] needs more memory, with the 0 MB of those "
                   "before it, than the 0 GB of this machine"));
    CHECK(contains(read(7), "/forward/hidden_states of shape [2, 2] needs more memory than the 0 GB"));
  }

  TEST_CASE("no sum of claims overflows") {
    ClaimedSizes sizes(~std::uint64_t{0});
    sizes.keep("a", {std::int64_t{1} << 60}, DType::Float64);
    CHECK(contains(input_error([&] { sizes.keep("b", {std::int64_t{1} << 60}, DType::Float64); }),
                   "b of shape"));
    sizes.keep("c", {(std::int64_t{1} << 60) - 1}, DType::Float64);
  }

  TEST_CASE("datasets that nobody asked for are searched for NaN up to a sum, and the others named") {
    const TemporaryFolder folder;
    {
      const Foreign foreign(folder / "f.h5", "candidate", kConfig, 1, 2);
      write_zeros(foreign, "/forward/a", std::int64_t{1} << 24);
      write_zeros(foreign, "/forward/b", (std::int64_t{1} << 24) + 1);
      write_zeros(foreign, "/forward/c", std::int64_t{1} << 20);
      // Fields of another shape are read for the judge to explain, out of the same sum.
      write_zeros(foreign, "/forward/hidden_states", std::int64_t{1} << 24, hdf5::bf16_type().get());
    }
    const auto read = read_golden(folder / "f.h5", {});
    const auto remarks = fmt::format("{}", fmt::join(read.candidate.remarks, "\n"));
    CHECK(contains(remarks, "/forward/a is not part of the schema\n"));
    CHECK(contains(remarks, "/forward/b is not part of the schema, and too large to be searched for NaN\n"));
    CHECK(contains(remarks, "/forward/c is not part of the schema\n"));
    CHECK(read.unknown.size() == 3);
    CHECK(contains(read.candidate.misstored.at(Field::hidden_states).sentence, "which is not read"));
  }

  TEST_CASE("datasets that lie over one another are refused, a few names for one are not") {
    hdf5::StoredObject root;
    auto& group = root.children.emplace_back();
    for (int i = 0; i < 4; ++i) group.children.emplace_back().stretches = {{0, 500, 0}, {500, 500, 0}};
    require_own_bytes(root, 1000);
    group.children.emplace_back().stretches = {{0, 4, 0}};
    CHECK(contains(input_error([&] { require_own_bytes(root, 1000); }),
                   "its datasets claim 4004 stored bytes of a file of 1000: they lie over one another"));
    group.children.back().stretches = {{0, ~std::uint64_t{0}, 0}, {0, ~std::uint64_t{0}, 0}};
    CHECK(contains(input_error([&] { require_own_bytes(root, 1000); }), "they lie over one another"));
  }

  TEST_CASE("a file of a thousand names for one dataset is one sentence, quickly") {
    const TemporaryFolder folder;
    {
      const Foreign foreign(folder / "f.h5", "candidate", kConfig, 1, 2);
      write_zeros(foreign, "/forward/a", std::int64_t{1} << 22);
      for (int i = 0; i < 1000; ++i)
        H5Lcreate_hard(foreign.file.get(), "/forward/a", foreign.file.get(),
                       fmt::format("/forward/b{}", i).c_str(), H5P_DEFAULT, H5P_DEFAULT);
    }
    CHECK(contains(input_error([&] { read_golden(folder / "f.h5", {}); }), "they lie over one another"));
    CHECK(contains(input_error([&] { inspect_file(folder / "f.h5"); }), "they lie over one another"));
  }
}
