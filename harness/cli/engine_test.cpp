// A report says the same, to the last digit, whether an engine compares fields or the CPU; and an engine is
// believed only as far as sampled cells go. The engine of these tests is the CPU's own functions behind the
// interface.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "gpu/engine/cell_arithmetic.h"
#include "harness/cli/engine_fields.h"
#include "harness/cli/judged.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/problems.h"
#include "harness/contract/element_constants.h"
#include "harness/contract/error.h"
#include "harness/contract/kept_at_hand.h"
#include "harness/contract/precision_contract.h"
#include "harness/judge/cells_by_engine.h"
#include "harness/judge/cells_on_host.h"
#include "reference_cpu/product/product.h"
#include "reference_cpu/qwen3_moe.h"
#include "reports/json.h"

using namespace assay;
using namespace assay::cli;

namespace {

using Change = std::function<void(FieldCells&)>;

Engine host_engine(Change change = nullptr) {
  Engine engine;
  engine.name = "host";
  const auto by_this_library = [](auto product, auto out) {
    product.engine = nullptr;
    std::ranges::copy(grouped_product(product), out.begin());
    return true;
  };
  engine.bounded = by_this_library;
  engine.predicted = by_this_library;
  engine.cells = [change](const FieldRows& field, FieldCells& out) {
    out = cells_on_host(field);
    if (change) change(out);
    return true;
  };
  return engine;
}

/// The same, and keeps products of values, counting them.
Engine keeping_engine(std::atomic<std::int64_t>& kept) {
  Engine engine = host_engine();
  engine.kept = [&kept, cells = engine.cells](auto product, const CommonErrors& errors) {
    product.engine = nullptr;
    auto values = grouped_product(product);
    const auto n = static_cast<std::size_t>(product.n);
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = with_common_error(values[i], errors.of_rows[i / n] + errors.of_columns[i % n]);
      if (errors.above_underflow) values[i] = with_noise_above_underflow(values[i]);
    }
    ++kept;
    return kept_at_hand(std::move(values), cells);
  };
  return engine;
}

/// The device's arithmetic on the host, in the device's order.
bool device_cells(const FieldRows& field, FieldCells& out) {
  std::ranges::fill(out.column_flips_expected, 0.0);
  for (std::int64_t r = 0; r < field.rows; ++r)
    for (std::int64_t tile = 0; tile < field.tile_columns(); ++tile) {
      gpu::DeviceCell cell{};
      for (int i = 0; i < field.cell_width(tile); ++i) {
        const std::int64_t column = tile * kCellColumns + i;
        const auto at = static_cast<std::size_t>(r * field.width + column);
        const Interval& x = field.reference[at];
        const auto d = gpu::cell::add_element(field.out[at].bits(), {x.ref, x.low, x.high, x.noise, x.mean},
                                              field.carried, i, cell);
        out.column_flips_expected[static_cast<std::size_t>(r / kTaskRows * field.width + column)] +=
            d.flip_chance;
        if (field.classes.empty()) continue;
        const Bf16 argument = field.classes[static_cast<std::size_t>(r * field.class_stride + column)];
        ClassSums& of_class = out.classes[argument.bits];
        of_class.flips_expected += static_cast<std::int64_t>(std::ceil(d.flip_chance * kFixedPoint));
        of_class.excess_expected += static_cast<std::int64_t>(std::ceil(d.excess_expected * kFixedPoint));
        ++of_class.elements;
      }
      std::memcpy(static_cast<void*>(&out.cells[static_cast<std::size_t>(r * field.tile_columns() + tile)]),
                  &cell, sizeof cell);
    }
  return true;
}

std::string report(const Problem& problem, const Candidate& candidate, const Engine* engine) {
  JudgeOptions options;
  options.reference = make_reference;
  options.engine = engine;
  Report all;
  all.cases.push_back(judge(problem, candidate, options));
  all.cases.back().seconds = 0.0;
  return to_json(all);
}

/// A field larger than what is sampled: 3 tasks of 12 cells.
struct Large {
  static constexpr std::int64_t kRows = 600;
  static constexpr std::int64_t kWidth = 1500;
  std::vector<Bf16> out;
  std::vector<Interval> reference;
  Large() {
    for (std::int64_t i = 0; i < kRows * kWidth; ++i) {
      const double ref = 1.0 + 0x1p-20 * static_cast<double>(i % 999983);
      reference.push_back({ref, ref - 0x1p-9, ref + 0x1p-9, 0x1p-12});
      out.push_back(round_to_bf16(ref));
    }
  }
  std::optional<FieldCells> cells(const Engine& engine, Dependence dependence = Dependence::Elements) const {
    const std::span<const Bf16> classes =
        dependence == Dependence::Classes ? std::span<const Bf16>(out) : std::span<const Bf16>();
    return cells_by_engine(&engine,
                           {{Field::hidden_states, Sizes{{kWidth, 1, 1, 1, true}, kRows}, nullptr},
                            dependence,
                            classes,
                            kWidth,
                            -10.0},
                           out, reference);
  }
};

}  // namespace

TEST_SUITE("engine_cells") {
  TEST_CASE("reports are the CPU's to the last digit, whatever the candidate") {
    for (const char* name : {"odd", "tiny", "saturated"}) {
      const Problem problem = load_fixture(name);
      const auto& contract = find_contract("hf");
      std::vector<Candidate> candidates = {
          forward(problem, contract),
          predict_forward(problem, contract, huggingface_accumulators(problem, "hf"))};
      for (const Field field :
           {Field::router_logits, Field::first_gemm, Field::intermediate, Field::hidden_states}) {
        candidates.push_back(forward(problem, contract));
        auto values = candidates.back().fields.at(field).as<Bf16>();
        const Bf16 planted[] = {{0x7fc0}, {0xff80}, {0x4580}, {0x0000}};
        for (std::size_t i = 0; i < 4; ++i)
          values[(i + 1) * values.size() / 5] = planted[static_cast<std::size_t>(field) % 4 + i < 4 ? i : 3];
        candidates.push_back(forward(problem, contract));
        for (Bf16& x : candidates.back().fields.at(field).as<Bf16>())
          x = round_to_bf16(to_float(x) * (1.0 + 0x1p-9));
      }
      for (const Candidate& candidate : candidates) {
        const Engine engine = host_engine();
        CHECK(report(problem, candidate, nullptr) == report(problem, candidate, &engine));
        CHECK(engine.taken->comparisons >= 6);
      }
    }
  }

  TEST_CASE("of both passes too, where intervals are made ahead of what is predicted and compared") {
    const auto& contract = find_contract("hf");
    for (const char* name : {"empty_experts", "long_segment"}) {
      const Problem problem = load_fixture(name);
      for (const Candidate& candidate :
           {both_passes(problem, contract),
            predict_both_passes(problem, contract, huggingface_accumulators(problem, "hf"))}) {
        const Engine engine = host_engine();
        CHECK(report(problem, candidate, nullptr) == report(problem, candidate, &engine));
        CHECK(engine.taken->products >= 4 * problem.config.num_experts / 2);
      }
    }
  }

  TEST_CASE("of experts' gradients by intervals that the engine keeps, right ones and wrong ones") {
    const auto& contract = find_contract("hf");
    for (const char* name : {"empty_experts", "long_segment"}) {
      const Problem problem = load_fixture(name);
      const Candidate right = both_passes(problem, contract);
      Candidate wrong = right;
      Candidate hostile = right;
      for (const Field field : {Field::d_down_proj, Field::d_gate_up_proj}) {
        const auto values = wrong.fields.at(field).as<Bf16>();
        values[values.size() / 3] = {0x4580};
        const auto others = hostile.fields.at(field).as<Bf16>();
        others[0] = {0x7fc0};
        others[others.size() / 2] = {0x7f80};
        for (std::size_t i = others.size() / 4; i < others.size() / 3; ++i) others[i].bits ^= 1;
      }
      for (const Candidate& candidate : {right, wrong, hostile}) {
        std::atomic<std::int64_t> kept = 0;
        const Engine engine = keeping_engine(kept);
        const Engine without = host_engine();
        CHECK(report(problem, candidate, nullptr) == report(problem, candidate, &engine));
        CHECK(kept >= 4 * problem.config.num_experts / 2);
        report(problem, candidate, &without);
        CHECK(engine.taken->products == without.taken->products);
        CHECK(engine.taken->comparisons == without.taken->comparisons);
      }
    }
  }

  TEST_CASE("parts of a large product are worth the way, but for small ones") {
    CHECK(worth_the_way(100, 0, 100));
    CHECK_FALSE(worth_the_way(99, 0, 100));
    CHECK(worth_the_way(1 << 10, 1 << 20, 1 << 20));
    CHECK_FALSE(worth_the_way((1 << 10) - 1, 1 << 20, 1 << 20));
    CHECK_FALSE(worth_the_way(1 << 10, (1 << 20) - 1, 1 << 20));
  }

  TEST_CASE("the device's arithmetic gives the judge's cells to the last bit") {
    Engine engine = host_engine();
    engine.cells = device_cells;
    CHECK(compare_small_fields(engine) == 0);
    CHECK(planted_differences_are_found(engine));
  }

  TEST_CASE("one bit of a sampled cell or column is enough to refuse the engine") {
    const Large field;
    const auto up = [](double& x) { x = std::nextafter(x, 1e9); };
    const Change changes[] = {[](FieldCells& c) { c.cells[0].test.rejected = 1; },
                              [](FieldCells& c) { c.cells[0].test.mismatched ^= 1; },
                              [=](FieldCells& c) { up(c.cells[0].test.max_ratio); },
                              [](FieldCells& c) { c.cells[0].sums.flipped[1] ^= 4; },
                              [=](FieldCells& c) { up(c.cells[0].sums.excess); },
                              [=](FieldCells& c) { up(c.cells[0].sums.flips_expected); },
                              [=](FieldCells& c) { up(c.cells.back().sums.z2); },
                              [=](FieldCells& c) { up(c.cells.back().sums.max_contract_ulps); },
                              [=](FieldCells& c) { up(c.column_flips_expected.back()); },
                              [=](FieldCells& c) { up(c.column_flips_expected.front()); }};
    for (const Change& change : changes) CHECK_THROWS_AS(field.cells(host_engine(change)), InputError);
    CHECK(field.cells(host_engine()).has_value());
  }

  TEST_CASE(
      "a cell that no field can give is refused wherever it stands: unwritten, NaN, more than its elements") {
    const Large field;
    constexpr std::size_t kUnsampled = 599 * 12;
    const Change changes[] = {
        [](FieldCells& c) { std::memset(static_cast<void*>(&c.cells[kUnsampled]), 0xff, sizeof(Cell)); },
        [](FieldCells& c) { c.cells[kUnsampled].test.max_ratio = std::numeric_limits<double>::quiet_NaN(); },
        [](FieldCells& c) { c.cells[kUnsampled].test.rejected = -1; },
        [](FieldCells& c) { c.cells[kUnsampled].test.non_finite = 1; },
        [](FieldCells& c) { c.cells[kUnsampled].test.mismatched = 129; },
        [](FieldCells& c) { c.cells[kUnsampled].sums.z2 = std::numeric_limits<double>::quiet_NaN(); },
        [](FieldCells& c) { c.cells[kUnsampled].sums.flips_expected = 128.5; },
        [](FieldCells& c) { c.cells.back().sums.flipped[1] |= std::uint64_t{1} << 63; },
        [](FieldCells& c) {
          c.column_flips_expected[2 * Large::kWidth] = std::numeric_limits<double>::quiet_NaN();
        },
        [](FieldCells& c) { c.classes[0x3f80].flips_expected += std::int64_t{1} << 40; },
        [](FieldCells& c) { ++c.classes[0].elements; }};
    for (const Change& change : changes)
      CHECK_THROWS_AS(field.cells(host_engine(change), Dependence::Classes), InputError);
    CHECK(field.cells(host_engine(), Dependence::Classes).has_value());
  }

  TEST_CASE("small fields and declined ones are compared by the CPU") {
    const Large field;
    Engine engine = host_engine();
    engine.least_elements = Large::kRows * Large::kWidth + 1;
    CHECK_FALSE(field.cells(engine).has_value());
    engine.least_elements = 0;
    engine.cells = [](const FieldRows&, FieldCells&) { return false; };
    CHECK_FALSE(field.cells(engine).has_value());
  }
}
