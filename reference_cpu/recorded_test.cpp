// The tensor core's model against results recorded on a GPU (data/mma_sm90.txt, written by
// gpu/probe/probe_mma.cu).
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>

#include "data_dir.h"
#include "reference_cpu/product/test_products.h"

using namespace assay;

namespace {

std::uint64_t hash(std::uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

/// Element `index` of a recorded product's operands, as the probe made it.
Bf16 recorded_value(const std::string& data, std::uint64_t seed, std::uint64_t index) {
  const std::uint64_t word = hash(seed * 0x100000000 + index);
  int sum = -131070;
  for (int lane = 0; lane < 64; lane += 16) sum += static_cast<int>(word >> lane & 0xffff);
  float x = static_cast<float>(sum) * 0x1p-15f;
  if (data == "one_sign") x = std::fabs(x);
  if (data == "heavy_tail") x = std::ldexp(x, static_cast<int>(hash(word) % 25) - 12);
  return round_to_bf16(x);
}

std::uint32_t bits_of(const PredictedValue& x) { return std::bit_cast<std::uint32_t>(x.value); }

struct Recorded {
  std::vector<ProductExample> examples;  // [1, k] x [1, k] crafted ones, [16, k] x [8, k] random ones
  std::vector<std::vector<std::uint32_t>> results;  // fp32 words
};

Recorded read_recorded() {
  Recorded all;
  std::ifstream file(std::string(ASSAY_DATA_DIR) + "/mma_sm90.txt");
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string kind;
    std::string data;
    std::string k_text;
    std::string word;
    words >> kind;
    if (kind == "random") {
      std::int64_t k = 0;
      std::uint64_t seed = 0;
      words >> data >> k >> seed;
      ProductExample e{16, k, 8, {}, {}};
      for (std::int64_t i = 0; i < 16 * k; ++i)
        e.left.push_back(recorded_value(data, seed, static_cast<std::uint64_t>(i)));
      for (std::int64_t i = 16 * k; i < 24 * k; ++i)
        e.right.push_back(recorded_value(data, seed, static_cast<std::uint64_t>(i)));
      all.examples.push_back(e);
      words >> word;  // ':'
    } else if (kind == "crafted") {
      words >> k_text;
      ProductExample e{1, std::stoll(k_text), 1, {}, {}};
      for (auto* operand : {&e.left, &e.right})
        for (std::int64_t i = 0; i < e.k; ++i) {
          words >> word;
          operand->push_back({static_cast<std::uint16_t>(std::stoul(word, nullptr, 16))});
        }
      all.examples.push_back(e);
      words >> word;  // '='
    } else {
      continue;
    }
    all.results.emplace_back();
    while (words >> word)
      all.results.back().push_back(static_cast<std::uint32_t>(std::stoul(word, nullptr, 16)));
  }
  return all;
}

/// Elements that differ from what was recorded.
std::int64_t count_differing(const Recorded& recorded, const Accumulator& accumulator,
                             std::int64_t& elements) {
  std::int64_t differing = 0;
  for (std::size_t i = 0; i < recorded.examples.size(); ++i) {
    const auto out = multiply<PredictedValue>(recorded.examples[i], accumulator);
    REQUIRE(out.size() == recorded.results[i].size());
    elements += static_cast<std::int64_t>(out.size());
    for (std::size_t j = 0; j < out.size(); ++j)
      differing += bits_of(out[j]) != recorded.results[i][j] || out[j].undetermined;
  }
  return differing;
}

}  // namespace

TEST_SUITE("recorded") {
  TEST_CASE("the hopper accumulator gives every bit recorded on an H200, crafted and random") {
    const auto recorded = read_recorded();
    std::int64_t elements = 0;
    CHECK(count_differing(recorded, kHopper, elements) == 0);
    CHECK(elements == 59 + 12 * 128);
  }

  TEST_CASE("no other order or width gives them") {
    const auto recorded = read_recorded();
    for (const Accumulator& other :
         {Accumulator{AccumulatorKind::Ampere, {}}, Accumulator{AccumulatorKind::Fp32Sequential, {}},
          Accumulator{AccumulatorKind::Fp32Pairwise, {}},
          Accumulator{AccumulatorKind::HopperDescending, {}, 16},
          Accumulator{AccumulatorKind::HopperInterleaved, {}, 16, 2},
          Accumulator{AccumulatorKind::Hopper, {64, 64}}}) {
      std::int64_t elements = 0;
      const auto differing = count_differing(recorded, other, elements);
      INFO(to_string(other));
      CHECK(differing > 100);
    }
  }

  TEST_CASE("every recorded result lies inside the a-priori and the running bound") {
    const auto recorded = read_recorded();
    for (std::size_t i = 0; i < recorded.examples.size(); ++i)
      for (const Accumulator& accumulator : {Accumulator{}, kHopper}) {
        const auto bounded = multiply<Interval>(recorded.examples[i], accumulator);
        for (std::size_t j = 0; j < bounded.size(); ++j) {
          const float value = std::bit_cast<float>(recorded.results[i][j]);
          CHECK(bounded[j].low <= value);
          CHECK(value <= bounded[j].high);
        }
      }
  }
}
