#include "harness/cli/mutate/rivals.h"

#include <algorithm>
#include <initializer_list>
#include <limits>

#include <doctest/doctest.h>

using namespace assay;
using namespace assay::cli;

namespace {

Tensor filled(std::initializer_list<float> values) {
  Tensor tensor(DType::BFloat16, {1, static_cast<std::int64_t>(values.size())});
  std::ranges::transform(values, tensor.as<Bf16>().begin(), [](float x) { return round_to_bf16(x); });
  return tensor;
}

/// The reference is exact, and PyTorch's run is `torch`.
bool accepts(std::string_view rival, const Tensor& out, const Tensor& reference, const Tensor& torch) {
  std::vector<double> exact;
  for (const Bf16 x : reference.as<Bf16>()) exact.push_back(to_float(x));
  const auto accepting = accepting_rivals(out, Beside{reference, torch, exact});
  return std::ranges::find(accepting, rival) != accepting.end();
}

bool accepts(std::string_view rival, const Tensor& out, const Tensor& reference) {
  return accepts(rival, out, reference, reference);
}

}  // namespace

TEST_SUITE("rivals") {
  TEST_CASE("rules of thumb, by hand") {
    const Tensor ones = filled({1, 1, 1, 1});
    for (const auto& rival : rivals()) CHECK(accepts(rival.id, ones, ones));
    const Tensor one_off = filled({1, 1, 1, 1.03125f});  // 3.1e-2 away, 2e-2 and 1.6e-2 allowed
    CHECK_FALSE(accepts("allclose_1e-2", one_off, ones));
    CHECK_FALSE(accepts("allclose_torch", one_off, ones));
    CHECK_FALSE(accepts("matched_95", one_off, ones));  // 75 % match
    CHECK(accepts("calc_diff_1e-3", one_off, ones));    // 1 - 8.0625 / 8.0635
    CHECK_FALSE(accepts("calc_diff_1e-5", one_off, ones));
    CHECK(accepts("cosine_0.997", one_off, ones));
    CHECK(accepts("cosine_0.997", filled({2, 2, 2, 2}), ones));
    CHECK_FALSE(accepts("cosine_0.997", filled({1, 1, 1, 0}), ones));
    const Tensor near = filled({1, 1, 1, 1.0078125f});  // 7.8e-3 away, 1.3e-2 allowed
    CHECK(accepts("allclose_liger", near, ones));
    CHECK_FALSE(accepts("allclose_liger", filled({1, 1, 1, 1.015625f}), ones));
    CHECK_FALSE(accepts("allclose_liger", filled({0, 0, 0, 0.00390625f}), filled({0, 0, 0, 0})));
    CHECK_FALSE(accepts("twice_torch", near, ones));
    CHECK(accepts("twice_torch", filled({1.015625f, 1, 1, 1}), ones, near));
    CHECK_FALSE(accepts("twice_torch", filled({1.0234375f, 1, 1, 1}), ones, near));
  }

  TEST_CASE("a NaN passes only where the reference has one") {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const Tensor ones = filled({1, 1, 1, 1});
    const Tensor lost = filled({1, 1, 1, nan});
    for (const auto& rival : rivals()) {
      CHECK_FALSE(accepts(rival.id, lost, ones));
      CHECK(accepts(rival.id, lost, lost));
    }
  }
}
