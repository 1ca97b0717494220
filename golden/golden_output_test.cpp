// A failed write leaves nothing behind and keeps the older file.
#include <doctest/doctest.h>

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>

#include "golden/golden_file.h"
#include "golden/sha256.h"
#include "golden/test_support.h"

using namespace assay;
using namespace assay::test;

namespace {

std::size_t entries(const TemporaryFolder& folder) {
  const std::filesystem::directory_iterator list(folder.path());
  return static_cast<std::size_t>(std::distance(begin(list), end(list)));
}

/// No file may grow beyond `bytes` while this lives: a full disk, as far as a writer can tell.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_{};
  void (*handler_)(int);
};

}  // namespace

TEST_SUITE("golden output") {
  TEST_CASE("SHA-256 of the standard's examples") {
    // FIPS 180-4 examples
    CHECK(sha256_hex(std::string_view("abc")) ==
          "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(sha256_hex(std::string_view("")) ==
          "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  }

  TEST_CASE("a write that runs out of space is one sentence, removes its traces and keeps the older file") {
    const TemporaryFolder folder;
    const auto sample = make_sample(kTinyConfig, 1, 2);
    write_bytes(folder / "g.h5", "the older file");
    std::string message;
    {
      const FileSizeLimit limit(4096);
      message = input_error([&] { write_golden(folder / "g.h5", sample.problem, sample.golden); });
    }
    CHECK(contains(message, "expected to write " + (folder / "g.h5").string() +
                                ", found that it cannot be written: File too large"));
    CHECK(read_bytes(folder / "g.h5") == "the older file");
    CHECK(entries(folder) == 1);
    write_golden(folder / "g.h5", sample.problem, sample.golden);
    CHECK(input_error([&] { read_golden(folder / "g.h5", {}); }).empty());
    CHECK(entries(folder) == 1);
  }

  TEST_CASE("a folder that is not there or not writable is one sentence") {
    const TemporaryFolder folder;
    const auto sample = make_sample(kTinyConfig, 1, 2);
    CHECK(contains(input_error([&] { write_golden(folder / "no/g.h5", sample.problem, sample.golden); }),
                   "No such file or directory"));
    CHECK(contains(input_error([&] { write_golden("/proc/g.h5", sample.problem, sample.golden); }),
                   "expected to write /proc/g.h5, found that it cannot be written: "));
    CHECK(contains(input_error([&] { write_golden(folder.path(), sample.problem, sample.golden); }),
                   "expected to write "));
    CHECK(entries(folder) == 0);
    CHECK_FALSE(std::filesystem::exists(folder.path().string() + ".part" + std::to_string(::getpid())));
  }

  TEST_CASE("what could not be read back is not written") {
    const TemporaryFolder folder;
    const auto refused = [&](const std::function<void(Sample&)>& spoil) {
      auto sample = make_sample(kTinyConfig, 1, 2);
      spoil(sample);
      return input_error([&] { write_golden(folder / "g.h5", sample.problem, sample.golden); });
    };
    CHECK(contains(refused([](Sample& s) { s.golden.fields.erase(Field::intermediate); }),
                   "a golden needs intermediate"));
    CHECK(contains(refused([](Sample& s) { s.problem.experts = nullptr; }),
                   "a golden needs its inputs and weights"));
    CHECK(contains(refused([](Sample& s) { s.problem.gate = Tensor(DType::BFloat16, {4, 5}); }),
                   "gate: expected bfloat16 [5, 4]"));
    CHECK(contains(
        refused([](Sample& s) { s.golden.fields.set(Field::first_gemm, Tensor(DType::Float64, {4, 6})); }),
        "first_gemm: expected bfloat16 [4, 6], found float64 [4, 6]"));
    CHECK(contains(refused([](Sample& s) { s.problem.config.top_k = 9; }), "top_k"));
    CHECK(entries(folder) == 0);
  }
}
