// The judge's reference, backward, beside what HuggingFace computed on an NVIDIA H200: predicted bits and
// intervals of every gradient that is stored, from the run's own upstream fields and from the inputs alone.
// Those held by hashes are judged like any field (harness/judge/held_checks.h).
#include <doctest/doctest.h>

#include <fmt/format.h>

#include "harness/cli/problems.h"
#include "reference_cpu/evaluator.h"
#include "reference_cpu/product/split_search.h"
#include "reference_cpu/reference_run.h"

using namespace assay;
using namespace assay::cli;

namespace {

constexpr const char* kSmall[] = {"tiny", "odd", "rows", "one_choice"};  // every gradient stored, oracles
constexpr std::int64_t kGradients = 11;

struct GradientTally {
  std::int64_t elements = 0;
  std::int64_t differing = 0;
  std::int64_t undetermined = 0;
  std::int64_t outside = 0;

  void add(const GradientTally& other) {
    elements += other.elements;
    differing += other.differing;
    undetermined += other.undetermined;
    outside += other.outside;
  }
};

std::string to_string(const GradientTally& t) {
  return fmt::format("{} elements, {} differing, {} undetermined, {} outside", t.elements, t.differing,
                     t.undetermined, t.outside);
}

/// The fields of a set that carry rounded values.
Upstream upstream_of_set(const FieldSet& fields) {
  Upstream upstream{&fields, {}};
  for (const FieldRow& field : kFields)
    upstream.usable[static_cast<std::size_t>(field.id)] =
        field.match != Match::Given && field.dtype == DType::BFloat16 && fields.has(field.id);
  return upstream;
}

FieldFlags gradients() {
  FieldFlags flags{};
  for (const FieldRow& field : kFields)
    flags[static_cast<std::size_t>(field.id)] = field.group == Group::Backward;
  return flags;
}

/// A golden's layer, its routing replayed; where cuBLAS chose how to split K, as it was measured to choose.
struct GoldenLayer {
  GoldenFile file;
  Layer layer;

  explicit GoldenLayer(const std::string& name) : file(load_file(fmt::format("golden/data/{}.h5", name))) {
    layer.problem = &file.problem;
    layer.contract = &find_contract(file.candidate.contract);
    layer.accumulators = layer.declared = file.candidate.accumulators;
    const bool eager = layer.contract->name == "hf_eager";
    for (const ProductRow& product : kProducts)
      if (Accumulator& accumulator = layer.accumulators[product.id];
          accumulator.kind == AccumulatorKind::HopperAnySplit)
        accumulator = measured_split(product.id, file.problem.config, file.problem.sizes().tokens, eager);
    const auto selected = fields().at(Field::selected_experts).as<std::int32_t>();
    layer.routing =
        get_token_counts_and_gather_indices(file.problem.config, {selected.begin(), selected.end()});
  }
  const FieldSet& fields() const { return file.candidate.fields; }
};

template <class A>
Values<A> stored_rows(Evaluator<A>& walk, const Layer& layer, Field field, RowRange rows) {
  auto values = walk.evaluate_rows(field, rows);
  store_field<A>(field, layer, values);
  return values;
}

void compare(const Values<Predicted>& values, std::span<const Bf16> out, GradientTally& tally) {
  REQUIRE(values.size() == out.size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    ++tally.elements;
    tally.undetermined += values[i].undetermined;
    tally.differing += !values[i].undetermined && round_to_bf16(values[i].value) != out[i];
  }
}

template <class T>
double as_double(T x) {
  if constexpr (std::is_same_v<T, Bf16>)
    return to_float(x);
  else
    return x;
}

template <class T>
void compare(const Values<Bounded>& values, std::span<const T> out, GradientTally& tally) {
  REQUIRE(values.size() == out.size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double x = as_double(out[i]);
    ++tally.elements;
    tally.outside += !(values[i].low <= x && x <= values[i].high);
  }
}

/// Every stored gradient in one arithmetic, block by block.
template <class A>
GradientTally compare_stored(const GoldenLayer& golden, const Upstream& upstream) {
  Evaluator<A> walk(golden.layer, upstream, gradients());
  GradientTally all;
  for (const FieldRow& field : kFields) {
    if (field.group != Group::Backward || !golden.fields().has(field.id)) continue;
    const Sizes sizes = golden.file.problem.sizes();
    const auto out = golden.fields().at(field.id).template as<Bf16>();
    GradientTally tally;
    for (const RowRange rows : blocks_of(field.id, sizes)) {
      const std::int64_t width = width_of(field.id, sizes);
      compare(stored_rows(walk, golden.layer, field.id, rows),
              out.subspan(static_cast<std::size_t>(rows.begin * width),
                          static_cast<std::size_t>(rows.count() * width)),
              tally);
    }
    CAPTURE(field.name);
    CAPTURE(golden.file.candidate.name);
    CHECK(tally.elements == std::ssize(out));
    CHECK_MESSAGE(tally.differing + tally.outside == 0, to_string(tally));
    all.add(tally);
  }
  return all;
}

}  // namespace

TEST_SUITE("gradients") {
  TEST_CASE("a fixture's seeded gradient of the output is the golden's") {
    for (const std::string name : kSmall) {
      const Problem made = load_fixture(name);
      const auto captured = load_file("golden/data/" + name + ".eager.h5").problem;
      CHECK(made.output_gradient.shape() == made.input.shape());
      CHECK(std::ranges::equal(made.output_gradient.as<Bf16>(), captured.output_gradient.as<Bf16>()));
    }
  }

  TEST_CASE("every gradient's bits are the H200's, from the run's own fields and from the inputs alone") {
    GradientTally all;
    for (const std::string name : kSmall)
      for (const char* implementation : {".grouped_mm", ".eager"}) {
        const GoldenLayer golden(name + implementation);
        std::int64_t count = 0;
        for (const FieldRow& field : kFields)
          count += field.group == Group::Backward && golden.fields().has(field.id);
        CHECK(count == kGradients);
        all.add(compare_stored<Predicted>(golden, upstream_of_set(golden.fields())));
        all.add(compare_stored<Predicted>(golden, {}));
      }
    MESSAGE("predicted: ", to_string(all));
    CHECK(all.elements > 0);
  }

  TEST_CASE("every gradient lies in its interval, from the run's own fields and from the inputs alone") {
    GradientTally all;
    for (const std::string name : kSmall)
      for (const char* implementation : {".grouped_mm", ".eager"}) {
        const GoldenLayer golden(name + implementation);
        all.add(compare_stored<Bounded>(golden, upstream_of_set(golden.fields())));
        all.add(compare_stored<Bounded>(golden, {}));
      }
    MESSAGE("bounded: ", to_string(all));
    CHECK(all.elements > 0);
  }

  TEST_CASE(
      "the plain layer confirms every gradient's reference value, in both modes, under every contract") {
    std::int64_t confirmed = 0;
    for (const std::string name : kSmall)
      for (const auto& contract : kContracts) {
        const GoldenLayer golden(name + ".grouped_mm");
        const Upstream upstream = upstream_of_set(golden.fields());
        const auto reference = make_reference(golden.file.problem, upstream, contract, {}, false);
        for (const FieldRow& field : kFields)
          for (const Mode mode : {Mode::Isolated, Mode::Chained})
            if (field.group == Group::Backward)
              confirmed += std::ssize(
                  reference->bounded(field.id, mode, all_rows(field.id, golden.file.problem.sizes())));
      }
    CHECK(confirmed > 0);
  }

  TEST_CASE("every oracle lies in its interval under fp64") {
    GradientTally all;
    for (const std::string name : kSmall)
      for (const char* implementation : {".grouped_mm", ".eager"}) {
        GoldenLayer golden(name + implementation);
        golden.layer.contract = &find_contract("fp64");
        golden.layer.declared = {};
        const FieldSet& oracle = golden.file.candidate.oracle;
        Upstream own{&oracle, {}};
        for (const FieldRow& field : kFields)
          own.usable[static_cast<std::size_t>(field.id)] =
              field.match != Match::Given && oracle.has(field.id);
        for (const Upstream& upstream : {own, Upstream{}}) {
          Evaluator<Bounded> walk(golden.layer, upstream, gradients());
          for (const FieldRow& field : kFields) {
            if (field.group != Group::Backward || !oracle.has(field.id)) continue;
            GradientTally tally;
            compare(stored_rows(walk, golden.layer, field.id,
                                {0, rows_of(field.id, golden.file.problem.sizes())}),
                    oracle.at(field.id).as<double>(), tally);
            CAPTURE(field.name);
            CAPTURE(golden.file.candidate.name);
            CHECK_MESSAGE(tally.outside == 0, to_string(tally));
            all.add(tally);
          }
        }
      }
    MESSAGE("oracles: ", to_string(all));
    CHECK(all.elements > 0);
  }
}
