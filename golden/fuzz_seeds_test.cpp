// What the fuzzers start from is read: a fuzzer whose every input is refused at once finds nothing.
#include <cstring>
#include <fstream>
#include <iterator>

#include <doctest/doctest.h>

#include "golden/described_golden.h"
#include "golden/fuzz/fuzzed_file.h"
#include "golden/golden_file.h"
#include "golden/safetensors.h"
#include "golden/tree_message.h"

using namespace assay;

namespace {

std::vector<char> seed(const std::string& name) {
  std::ifstream file("golden/fuzz/seeds/" + name, std::ios::binary);
  std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  REQUIRE_FALSE(bytes.empty());
  return bytes;
}

std::span<const std::byte> bytes_of(const std::vector<char>& bytes) {
  return std::as_bytes(std::span(bytes));
}

}  // namespace

TEST_SUITE("golden fuzz seeds") {
  TEST_CASE("whole HDF5 files are read as goldens and inspected, where the fuzzer puts them") {
    for (const auto* name : {"hdf5_file/whole", "hdf5_file/old_format"}) {
      const auto bytes = seed(name);
      const fuzz::FuzzedFile file(bytes_of(bytes));
      CHECK(read_golden(file.path(), {}).candidate.fields.has(Field::hidden_states));
      CHECK_NOTHROW(inspect_file(file.path()));
    }
  }

  TEST_CASE("a whole description is decoded and its file's data are read") {
    const auto bytes = seed("description/whole");
    std::uint32_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof length);
    const auto rest = bytes_of(bytes).subspan(sizeof length);
    const fuzz::FuzzedFile file(rest.subspan(length));
    const auto golden = golden_of(
        {std::make_shared<const OpenedFile>(file.path()), hdf5::decode(rest.first(length))}, "fuzz.h5", {});
    CHECK(golden.candidate.fields.has(Field::hidden_states));
  }

  TEST_CASE("a safetensors file opens") {
    const auto bytes = seed("safetensors/two");
    const fuzz::FuzzedFile file(bytes_of(bytes));
    CHECK(open_safetensors(file.path()).tensors.size() == 2);
  }

  TEST_CASE("a fuzzed file is gone with its owner") {
    std::filesystem::path path;
    {
      const auto bytes = seed("hdf5_file/whole");
      path = fuzz::FuzzedFile(bytes_of(bytes)).path();
    }
    CHECK_FALSE(std::filesystem::exists(path));
    CHECK_THROWS(read_golden(path, {}));
  }
}
