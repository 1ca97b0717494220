// A damaged file is one clear sentence, or reads exactly as before. Never a crash, never other data.
#include <doctest/doctest.h>

#include <fcntl.h>
#include <unistd.h>

#include <set>
#include <vector>

#include <fmt/format.h>

#include "golden/golden_file.h"
#include "golden/test_support.h"
#include "harness/contract/error.h"

using namespace assay;
using namespace assay::test;

/// The library forgets some of its own memory when it refuses damaged metadata; leak checking is about our
/// code.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5\nleak:H5"; }

namespace {

/// Writes one byte in place.
void put_byte(int descriptor, std::size_t at, char byte) {
  if (::pwrite(descriptor, &byte, 1, static_cast<off_t>(at)) != 1)
    throw std::runtime_error("cannot write a byte");
}

struct DamageTally {
  int harmless = 0;
  int reported = 0;
  std::set<std::size_t> silent;
};

/// Reads the file once for every byte, with one of `masks` applied to it, in turn.
DamageTally flip_every_byte(const std::filesystem::path& path, const std::vector<char>& masks) {
  const auto bytes = read_bytes(path);
  const auto intact = read_golden(path, test_regenerators());
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(descriptor >= 0);
  DamageTally tally;
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    put_byte(descriptor, at, static_cast<char>(bytes[at] ^ masks[at % masks.size()]));
    bool reported = false;
    try {
      // Comparing loads every expert too.
      if (same_file(intact, read_here(path))) {
        ++tally.harmless;
      } else {
        tally.silent.insert(at);
      }
    } catch (const InputError&) {
      ++tally.reported;
      reported = true;
    }
    if (at % 499 == 0)  // by a child as well, which must say the same
      CHECK(reported == !input_error([&] { read_golden(path, test_regenerators()); }).empty());
    put_byte(descriptor, at, bytes[at]);
  }
  ::close(descriptor);
  CHECK(read_bytes(path) == bytes);
  return tally;
}

void check_flips(const Sample& sample, const std::vector<char>& masks) {
  const TemporaryFolder folder;
  const auto path = folder / "sample.h5";
  write_golden(path, sample.problem, sample.golden);
  REQUIRE(std::filesystem::file_size(path) <= 16384);
  const auto tally = flip_every_byte(path, masks);
  MESSAGE(fmt::format("{} bytes: {} reported, {} harmless", std::filesystem::file_size(path), tally.reported,
                      tally.harmless));
  CHECK(tally.silent.empty());
  CHECK(tally.reported > tally.harmless);
}

}  // namespace

TEST_SUITE("golden damage") {
  TEST_CASE("a flip of any byte of a stored golden is an error or changes nothing") {
    check_flips(make_sample({2, 1, 2, 1, true}, 1, 2), {'\x01', '\xff'});
  }

  TEST_CASE("a flip of any byte of a dump with regenerated weights is an error or changes nothing") {
    auto sample = make_sample({2, 1, 2, 1, true}, 1, 2);
    use_generators(sample.problem);
    for (const Field stored : {Field::input_hidden_states, Field::gate})
      sample.problem.generators[static_cast<std::size_t>(stored)].reset();
    sample.golden.kind = "candidate";
    for (const auto& field : kFields)
      if (field.id != Field::hidden_states) sample.golden.fields.erase(field.id);
    check_flips(sample, {'\x10'});
  }
}
