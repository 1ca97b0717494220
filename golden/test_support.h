// What the tests of this folder share: tiny problems with made-up values, and a folder that vanishes.
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "golden/golden_file.h"

namespace assay::test {

/// A fresh folder, removed at the end of the test.
class TemporaryFolder {
 public:
  TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder();
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// A problem and a golden whose values are arbitrary bit patterns (NaN payloads and infinities among them):
/// files move bits.
struct Sample {
  Problem problem;
  Candidate golden;
};
Sample make_sample(const MoeConfig& config, std::int64_t batch, std::int64_t sequence, bool backward = false);
inline constexpr MoeConfig kTinyConfig{4, 3, 5, 2, true};

/// The bits a regenerated tensor has in these tests: a function of seed, stream and flat index.
Tensor test_fill(const Generator& generator);
Regenerators test_regenerators();

/// Names every input and weight of the problem by a generator and fills it accordingly.
void use_generators(Problem& problem);

bool same_tensor(const Tensor& a, const Tensor& b);
bool same_held(const HeldField& a, const HeldField& b);
/// Every tensor and every attribute that the program uses is the same.
bool same_file(const GoldenFile& a, const GoldenFile& b);

/// What read_golden gives, with HDF5 in this process: a child for each of 50,000 files would take minutes.
GoldenFile read_here(const std::filesystem::path& path);

std::string read_bytes(const std::filesystem::path& path);
void write_bytes(const std::filesystem::path& path, const std::string& bytes);

bool contains(const std::string& text, const std::string& part);

/// The message of the InputError that `call` throws; empty when it throws none.
std::string input_error(const std::function<void()>& call);

}  // namespace assay::test
