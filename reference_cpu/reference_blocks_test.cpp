// Weight gradients as the judge asks for them: block by block, in both modes.
#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <future>

#include "harness/contract/element_constants.h"
#include "harness/contract/error.h"
#include "harness/contract/kept_at_hand.h"
#include "harness/contract/noise.h"
#include "harness/contract/upstream.h"
#include "harness/host/worker.h"
#include "reference_cpu/product/product.h"
#include "reference_cpu/reference_run.h"
#include "reference_cpu/tiny_backward.h"

using namespace assay;

namespace {

/// Keeps what this library makes; `change` is done to each product.
Engine keeping_engine(const std::function<void(LargeVector<Interval>&)>& change = nullptr) {
  Engine engine;
  engine.name = "keeps";
  engine.kept = [change](auto product, const CommonErrors& errors) {
    product.engine = nullptr;
    auto values = grouped_product(product);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto n = static_cast<std::size_t>(product.n);
      values[i] = with_common_error(values[i], errors.of_rows[i / n] + errors.of_columns[i % n]);
      if (errors.above_underflow) values[i] = with_noise_above_underflow(values[i]);
    }
    if (change) change(values);
    return kept_at_hand(std::move(values));
  };
  return engine;
}

/// Every field as predicted, rounded to bf16, with its routing.
FieldSet all_fields(const TinyBackward& g) {
  FieldSet fields;
  const auto integers = [&](Field field, const std::vector<std::int32_t>& values) {
    Tensor tensor(DType::Int32, expected_shape(field, g.p.problem.sizes()));
    std::ranges::copy(values, tensor.as<std::int32_t>().begin());
    fields.set(field, std::move(tensor));
  };
  integers(Field::selected_experts, g.layer.routing.selected);
  integers(Field::token_counts_by_expert, g.layer.routing.counts);
  integers(Field::gather_indices, g.layer.routing.gather);
  for (const FieldRow& field : kFields) {
    if (given(field.id) || field.dtype != DType::BFloat16) continue;
    Tensor tensor(DType::BFloat16, expected_shape(field.id, g.p.problem.sizes()));
    const auto values = g.stored_value<Predicted>(field.id);
    for (std::size_t i = 0; i < values.size(); ++i) tensor.as<Bf16>()[i] = round_to_bf16(values[i].value);
    fields.set(field.id, std::move(tensor));
  }
  return fields;
}

struct SmallReference {
  TinyBackward g{plain::eighths({24, 16, 5, 3, true}, 11, 3), "hf"};
  FieldSet fields = all_fields(g);
  Upstream upstream = usable_upstream(g.p.problem, fields);
  std::unique_ptr<Reference> make(const Engine* engine = nullptr) const {
    return make_reference(g.p.problem, upstream, *g.layer.contract, g.layer.accumulators, true, engine);
  }
};

bool same(const Interval& a, const Interval& b) {
  return a.ref == b.ref && a.low == b.low && a.high == b.high && a.noise == b.noise && a.mean == b.mean;
}

}  // namespace

TEST_SUITE("reference blocks") {
  TEST_CASE("blocks of a weight gradient are the rows of the whole, bit for bit, in both modes") {
    const SmallReference small;
    const Sizes sizes = small.g.p.problem.sizes();
    for (const Field field : {Field::d_down_proj, Field::d_gate_up_proj})
      for (const Mode mode : {Mode::Isolated, Mode::Chained}) {
        CAPTURE(name(field));
        const auto at_once = small.make();
        const auto by_expert = small.make();
        const auto whole = at_once->bounded(field, mode, all_rows(field, sizes));
        const auto bits = at_once->predicted(field, mode, all_rows(field, sizes));
        REQUIRE(std::ssize(whole) == element_count(expected_shape(field, sizes)));
        const std::int64_t matrix = matrix_rows_of(field, sizes);
        const std::int64_t elements = matrix * width_of(field, sizes);
        for (std::int64_t e = 0; e < sizes.config.num_experts; ++e) {
          const auto block = by_expert->bounded(field, mode, {e * matrix, (e + 1) * matrix});
          const auto block_bits = by_expert->predicted(field, mode, {e * matrix, (e + 1) * matrix});
          REQUIRE(std::ssize(block) == elements);
          CHECK(std::equal(block.begin(), block.end(), whole.begin() + e * elements, same));
          CHECK(std::ranges::equal(block_bits,
                                   std::span(bits).subspan(static_cast<std::size_t>(e * elements),
                                                           static_cast<std::size_t>(elements)),
                                   {}, &PredictedBits::bits, &PredictedBits::bits));
        }
        const ConfirmedValues a = at_once->confirmed();
        const ConfirmedValues b = by_expert->confirmed();
        CHECK(a.of == std::ssize(whole));
        CHECK(a.values == a.of);
        CHECK(b.of == a.of);
        CHECK(b.values == a.values);
      }
  }

  TEST_CASE(
      "blocks that several threads ask for at a time are those asked for one by one, the last one last") {
    const SmallReference small;
    const Sizes sizes = small.g.p.problem.sizes();
    for (const Field field : {Field::d_down_proj, Field::d_gate_up_proj})
      for (const Mode mode : {Mode::Isolated, Mode::Chained}) {
        CAPTURE(name(field));
        const auto one_by_one = small.make();
        const auto side_by_side = small.make();
        const std::int64_t matrix = matrix_rows_of(field, sizes);
        const auto block = [&](std::int64_t e) { return RowRange{e * matrix, (e + 1) * matrix}; };
        std::deque<Worker> workers;
        std::vector<std::future<LargeVector<Interval>>> made;
        const std::int64_t last = sizes.config.num_experts - 1;
        for (std::int64_t e = 0; e < last; ++e)
          made.push_back(
              workers.emplace_back(2).start([&, e] { return side_by_side->bounded(field, mode, block(e)); }));
        for (std::int64_t e = 0; e <= last; ++e) {
          const auto ours = e < last ? made[static_cast<std::size_t>(e)].get()
                                     : side_by_side->bounded(field, mode, block(e));
          CHECK(std::ranges::equal(ours, one_by_one->bounded(field, mode, block(e)), same));
        }
        CHECK(side_by_side->confirmed().of == one_by_one->confirmed().of);
        CHECK(side_by_side->confirmed().values == one_by_one->confirmed().values);
      }
  }

  TEST_CASE("experts' matrices that an engine keeps are those at hand, bit for bit, and confirmed alike") {
    const SmallReference small;
    const Sizes sizes = small.g.p.problem.sizes();
    const Engine engine = keeping_engine();
    for (const Field field : {Field::d_down_proj, Field::d_gate_up_proj})
      for (const Mode mode : {Mode::Isolated, Mode::Chained}) {
        CAPTURE(name(field));
        const auto at_hand = small.make();
        const auto beside = small.make(&engine);
        const std::int64_t matrix = matrix_rows_of(field, sizes);
        std::int64_t kept_matrices = 0;
        for (std::int64_t e = 0; e < sizes.config.num_experts; ++e) {
          const RowRange rows{e * matrix, (e + 1) * matrix};
          const auto ours = at_hand->bounded(field, mode, rows);
          const auto kept = beside->kept(field, mode, rows);
          LargeVector<Interval> theirs(ours.size());
          if (kept)
            kept->bring(std::vector<std::int64_t>{0}, kept->elements, theirs);
          else
            theirs = beside->bounded(field, mode, rows);
          kept_matrices += kept != nullptr;
          CHECK(std::ranges::equal(ours, theirs, same));
        }
        CHECK(kept_matrices == sizes.config.num_experts);
        CHECK(at_hand->confirmed().of == beside->confirmed().of);
        CHECK(at_hand->confirmed().values == beside->confirmed().values);
        CHECK(at_hand->kept(field, mode, {0, matrix}) == nullptr);          // no engine
        CHECK(beside->kept(field, mode, {0, matrix + 1}) == nullptr);       // of two experts
        CHECK(beside->kept(Field::d_first_gemm, mode, {0, 3}) == nullptr);  // no expert's matrix
      }
  }

  TEST_CASE("a kept value that the plain layer does not confirm ends the judging, wherever it stands") {
    const SmallReference small;
    const std::int64_t matrix = matrix_rows_of(Field::d_down_proj, small.g.p.problem.sizes());
    const std::int64_t width = width_of(Field::d_down_proj, small.g.p.problem.sizes());
    // Sampled rows are the first and the last: this one is the plain layer's to find.
    const Engine engine = keeping_engine([&](LargeVector<Interval>& values) {
      Interval& x = values[static_cast<std::size_t>(matrix / 2 * width + 3)];
      x = {x.ref + 1.0, x.low + 1.0, x.high + 1.0, x.noise, x.mean};
    });
    CHECK_THROWS_WITH_AS(small.make(&engine)->kept(Field::d_down_proj, Mode::Isolated, {0, matrix}),
                         doctest::Contains("disagrees with itself"), InputError);
  }

  TEST_CASE("where a split is still to be found the prediction says that it comes first, and finds it once") {
    const SmallReference small;
    Accumulators open = small.g.layer.accumulators;
    for (const ProductId product : {ProductId::gate_up, ProductId::down_dw})
      open[product] = {AccumulatorKind::HopperAnySplit, {}};
    const auto reference =
        make_reference(small.g.p.problem, small.upstream, *small.g.layer.contract, open, true);
    for (const Field field : {Field::first_gemm, Field::d_down_proj}) {
      CAPTURE(name(field));
      CHECK(reference->predicts_first(field, Mode::Isolated));
      CHECK_FALSE(reference->predicts_first(field, Mode::Chained));
      reference->predicted(field, Mode::Isolated, blocks_of(field, small.g.p.problem.sizes()).front());
      CHECK_FALSE(reference->predicts_first(field, Mode::Isolated));
    }
    CHECK_FALSE(reference->predicts_first(Field::second_gemm, Mode::Isolated));  // declared
    CHECK_FALSE(reference->predicts_first(Field::intermediate, Mode::Isolated));
  }

  TEST_CASE("the bounds accounted for are those that the elements are judged by") {
    const SmallReference small;
    const Sizes sizes = small.g.p.problem.sizes();
    for (const Field field : {Field::first_gemm, Field::d_intermediate, Field::d_permuted_hidden_states,
                              Field::d_down_proj, Field::d_gate_up_proj, Field::d_gate})
      for (const Mode mode : {Mode::Isolated, Mode::Chained}) {
        CAPTURE(name(field));
        const auto reference = small.make();
        const auto values = reference->bounded(field, mode, all_rows(field, sizes));
        const std::vector<std::int64_t> elements = {0, 1, 40, std::ssize(values) / 2, std::ssize(values) - 1};
        const BoundAccount account = reference->bound_account(field, mode, elements);
        CHECK_FALSE(account.a_priori.empty());
        REQUIRE(account.elements.size() == elements.size());
        for (std::size_t i = 0; i < elements.size(); ++i) {
          const double in_force = radius(values[static_cast<std::size_t>(elements[i])]);
          if (in_force == 0.0) continue;  // exact in any order, or no rows
          const BoundPair& pair = account.elements[i];
          CHECK(in_force ==
                doctest::Approx(std::min(pair.a_priori, pair.running.value_or(pair.a_priori))).epsilon(1e-3));
        }
      }
  }

  TEST_CASE("rows of a field that is computed whole are refused") {
    const SmallReference small;
    CHECK_THROWS_WITH_AS(small.make()->bounded(Field::d_first_gemm, Mode::Isolated, {0, 3}),
                         "expected rows 0 to 33 of d_first_gemm, all of it, found 0 to 3", InputError);
  }
}
