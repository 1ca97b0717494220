// Products with kept panels have the bits of those without.
#include <doctest/doctest.h>

#include <numeric>

#include "reference_cpu/product/kept_panels.h"
#include "reference_cpu/product/test_products.h"

using namespace assay;

namespace {

/// Two experts of three rows each; `loads` counts how often a matrix is given out.
struct TwoExperts {
  ProductExample e = random_example(Data::Gaussian, 6, 72, 2 * 40, 9);
  std::shared_ptr<const std::vector<Bf16>> matrices = std::make_shared<std::vector<Bf16>>(e.right);
  std::vector<std::int32_t> source = {0, 1, 2, 3, 4, 5};
  std::vector<std::int64_t> offsets = {0, 3, 6};

  LargeVector<PredictedValue> product(const Fault& fault = {}, Lies lies = Lies::AlongColumns,
                                      bool owned = true) const {
    std::vector<PredictedValue> left;
    for (const Bf16 x : e.left) left.push_back({to_float(x), false});
    GroupedProduct<PredictedValue> p;
    p.left = left;
    p.source = source;
    p.offsets = offsets;
    p.k = 72;
    p.n = 40;
    p.right_lies = lies;
    p.accumulator = kHopper;
    p.fault = fault;
    p.weights = [&](std::int64_t expert) {
      return ExpertMatrix{std::span(*matrices).subspan(static_cast<std::size_t>(expert) * 40 * 72, 40 * 72),
                          owned ? matrices : nullptr};
    };
    return grouped_product(p);
  }
};

bool same(const LargeVector<PredictedValue>& a, const LargeVector<PredictedValue>& b) {
  return std::ranges::equal(a, b, [](const PredictedValue& x, const PredictedValue& y) {
    return std::bit_cast<std::uint32_t>(x.value) == std::bit_cast<std::uint32_t>(y.value) &&
           x.undetermined == y.undetermined;
  });
}

constexpr PanelPlace place(std::int64_t first) { return {72, 40, first, 16, Lies::AlongColumns}; }

}  // namespace

TEST_SUITE("kept panels") {
  TEST_CASE("what is kept changes no bit: of other layouts, shorter sums and other experts either") {
    const TwoExperts two;
    const Fault faults[] = {{},
                            {.kind = FaultKind::DropLastK, .amount = 8},
                            {.kind = FaultKind::DropLastK, .amount = 3},
                            {.kind = FaultKind::WrongExpert, .amount = 1},
                            {.kind = FaultKind::AccumulateBf16},
                            {.kind = FaultKind::ZeroLastRow}};
    for (const Lies lies : {Lies::AlongColumns, Lies::AlongRows})
      for (const Fault& fault : faults) {
        const auto expected = two.product(fault, lies);
        for (const std::size_t bytes : {std::size_t{1} << 20, std::size_t{16384}, std::size_t{0}}) {
          KeptPanels panels(bytes);
          two.product();  // packs
          CHECK(same(two.product(fault, lies), expected));
          panels.close();
          CHECK(same(two.product(fault, lies), expected));
        }
      }
  }

  TEST_CASE(
      "a panel is packed once, nothing is kept of what nobody owns, nor once closed, nor beyond the room") {
    const TwoExperts two;
    const auto matrix = [&](std::int64_t expert) {
      return ExpertMatrix{
          std::span(*two.matrices).subspan(static_cast<std::size_t>(expert) * 40 * 72, 40 * 72),
          two.matrices};
    };
    constexpr std::size_t kPanel = 80 * 16 * 8;  // K in whole steps, 16 columns, a value and an exponent
    KeptPanels panels(2 * kPanel);
    CHECK(KeptPanels::of_this_thread() == &panels);
    CHECK(panels.find({matrix(0).values, nullptr}, place(0)) == nullptr);
    const auto* first = panels.find(matrix(0), place(0));
    REQUIRE(first != nullptr);
    CHECK(panels.find(matrix(0), place(0)) == first);
    CHECK(first->values[1] == to_float(matrix(0).values[72]));
    panels.close();
    CHECK(panels.find(matrix(1), place(0)) == nullptr);
    CHECK(panels.find(matrix(0), place(0)) == first);
    {
      KeptPanels inner(2 * kPanel);
      CHECK(KeptPanels::of_this_thread() == &inner);
      CHECK(inner.find(matrix(0), place(0)) != nullptr);
      CHECK(inner.find(matrix(0), place(16)) != nullptr);
      CHECK(inner.find(matrix(1), place(0)) == nullptr);
    }
    CHECK(KeptPanels::of_this_thread() == &panels);
  }
}
