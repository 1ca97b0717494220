// The noise model against brute force: products in every legal order, and whole layers on every accumulator.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include <fmt/format.h>

#include "reference_cpu/evaluator.h"
#include "reference_cpu/product/layer_product.h"
#include "reference_cpu/product/test_products.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"
#include "reference_cpu/stages.h"

using namespace assay;

namespace {

/// Errors beside the noise modelled for them; an element without noise must be exact.
struct Spread {
  double normalised = 0.0;
  double errors = 0.0;
  double noises = 0.0;
  std::int64_t count = 0;
  double independent = 0.0;  // of these
  std::int64_t inexact = 0;
  void add(double error, double noise, double share = 1.0) {
    inexact += !(noise > 0.0) && error != 0.0;
    if (!(noise > 0.0)) return;
    normalised += error / noise * (error / noise);
    errors += error * error;
    noises += noise * noise;
    ++count;
    independent += share;
  }
  void add(const Spread& other) {
    normalised += other.normalised;
    errors += other.errors;
    noises += other.noises;
    count += other.count;
    independent += other.independent;
    inexact += other.inexact;
  }
  /// Root mean square of error / noise.
  double rms() const { return count == 0 ? 0.0 : std::sqrt(normalised / static_cast<double>(count)); }
  /// Root mean square of all errors over that of all noises: how tight the model is. A few elements decide
  /// it.
  double pooled() const { return count == 0 ? 0.0 : std::sqrt(errors / noises); }
};

void check(const std::string& what, const Spread& spread) {
  INFO(fmt::format("{}: rms {:.3f}, pooled {:.3f} of {}", what, spread.rms(), spread.pooled(), spread.count));
  CHECK(spread.rms() <= 1.0);
  CHECK(spread.inexact == 0);
  if (std::getenv("ASSAY_PRINT_NOISE") != nullptr)
    fmt::print("{}: rms {:.3f}, pooled {:.3f} of {}\n", what, spread.rms(), spread.pooled(), spread.count);
}

std::map<std::string, Accumulator> legal_orders(std::int64_t k) {
  std::map<std::string, Accumulator> all = {{"sequential", {AccumulatorKind::Fp32Sequential, {}}},
                                            {"pairwise", {AccumulatorKind::Fp32Pairwise, {}}},
                                            {"hopper", kHopper}};
  const std::int64_t quarter = (k / 4 + 15) / 16 * 16;
  if (3 * quarter < k && quarter > 0)
    all["hopper, 4 splits"] = {AccumulatorKind::Hopper, {quarter, quarter, quarter, k - 3 * quarter}};
  return all;
}

/// The gradients of a predicted layer beside its forward fields, where they are stored.
void add_gradients(const Problem& problem, const PrecisionContract& contract, const Accumulator& order,
                   FieldSet& fields) {
  Layer layer;
  layer.problem = &problem;
  layer.contract = &contract;
  layer.accumulators = every_product(order);
  const auto selected = fields.at(Field::selected_experts).as<std::int32_t>();
  layer.routing = get_token_counts_and_gather_indices(problem.config, {selected.begin(), selected.end()});
  FieldFlags gradients{};
  for (const FieldRow& field : kFields)
    gradients[static_cast<std::size_t>(field.id)] = field.group == Group::Backward;
  Evaluator<Predicted> walk(layer, {}, gradients);
  for (const Field field : kEvaluationOrder) {
    if (row(field).group != Group::Backward) continue;
    const auto& values = walk.value(field);
    Tensor tensor(dtype_of(field, contract), expected_shape(field, problem.sizes()));
    for (std::size_t i = 0; i < values.size(); ++i)
      if (tensor.dtype() == DType::Float32)
        tensor.as<float>()[i] = values[i].value;
      else
        tensor.as<Bf16>()[i] = round_to_bf16(values[i].value);
    fields.set(field, std::move(tensor));
  }
}

/// A predicted layer's errors after storing, by field and mode.
std::map<std::string, Spread> layer_spread(const Problem& problem, std::string_view contract_name,
                                           const Accumulator& order, Group group = Group::Forward) {
  const PrecisionContract& contract = find_contract(contract_name);
  auto candidate = predict_forward(problem, contract, {order, order, order});
  if (group == Group::Backward) add_gradients(problem, contract, order, candidate.fields);
  Upstream upstream;
  upstream.fields = &candidate.fields;
  upstream.usable.fill(true);
  const auto reference = make_reference(problem, upstream, contract, {}, false);
  std::map<std::string, Spread> all;
  for (const auto& what : kFields) {
    if (what.group != group || what.dtype != DType::BFloat16 || !candidate.fields.has(what.id)) continue;
    const DType dtype = dtype_of(what.id, contract);
    const StoredSpan out(candidate.fields.at(what.id), dtype);
    // A row of d_second_gemm has one weight, which is rounded one way or the other for all of it.
    const double share = what.id == Field::d_second_gemm ? 1.0 / problem.config.hidden_size : 1.0;
    for (const Mode mode : {Mode::Isolated, Mode::Chained}) {
      const auto bounded = reference->bounded(what.id, mode, all_rows(what.id, problem.sizes()));
      Spread& spread = all[fmt::format("{} {}", what.name, mode == Mode::Isolated ? "isolated" : "chained")];
      for (std::size_t i = 0; i < out.size(); ++i) {
        const Interval at =
            dtype == DType::Float32 ? in_float32(bounded[i]) : stored(bounded[i], Store::Bf16);
        // A product sums squares of its operands' noise in fp32, where those of less than 2^-63 vanish: as of
        // silu's where e^-a overflows.
        if (group == Group::Backward && at.noise < 0x1p-63f && std::fabs(at.ref) < 0x1p-63) continue;
        spread.add(out.value(i) - at.ref, at.noise, share);
      }
    }
  }
  return all;
}

/// Isolated, few elements of some fields can be rounded in two ways: with fewer than this, chance decides.
bool enough(const Spread& spread) { return spread.independent >= 999.5; }

/// One of each way of rounding forward.
std::vector<std::string_view> contracts_of_forward() {
  const auto rounds = [](const PrecisionContract& c) {
    return std::tuple(c.logits, c.weights, c.first_gemm, c.swiglu_reads, c.silu, c.intermediate,
                      c.second_gemm, c.weighted, c.output, c.combine);
  };
  std::vector<std::string_view> names;
  for (const auto name : kKernelContracts)
    if (std::ranges::none_of(names, [&](std::string_view other) {
          return rounds(find_contract(other)) == rounds(find_contract(name));
        }))
      names.push_back(name);
  return names;
}

constexpr const char* kDataNames[] = {"gaussian", "one sign", "octave", "heavy tail", "cancelling"};

}  // namespace

TEST_SUITE("noise") {
  TEST_CASE("a product's noise is above the rms error of every legal order, at every length") {
    for (const Data data : {Data::Gaussian, Data::OneSign, Data::Octave, Data::HeavyTail, Data::Cancelling})
      for (const std::int64_t k : {1, 2, 3, 7, 15, 16, 17, 33, 64, 128, 300, 768, 2048, 4096, 32768}) {
        const std::int64_t columns = k > 4096 ? 4 : k > 512 ? 32 : 64;
        const auto e = random_example(data, columns, k, columns, static_cast<unsigned>(k));
        const auto bounded = multiply<Interval>(e, {});
        for (const auto& [order, accumulator] : legal_orders(k)) {
          const auto out = multiply<PredictedValue>(e, accumulator);
          Spread spread;
          for (std::size_t i = 0; i < out.size(); ++i)
            spread.add(out[i].value - bounded[i].ref, bounded[i].noise);
          check(fmt::format("{}, {} terms, {}", kDataNames[static_cast<int>(data)], k, order), spread);
        }
      }
  }

  TEST_CASE("weights and the activation before they are stored") {
    for (const bool renormalised : {true, false}) {
      const auto problem = random_layer(Data::Gaussian, {128, 64, 64, 8, renormalised}, 200, 3);
      Layer layer;
      layer.problem = &problem;
      layer.contract = &find_contract("fused_fp32");
      layer.accumulators = every_product(kHopper);
      auto logits = product_values<Predicted>(ProductId::router, layer, nullptr);
      store_field<Predicted>(Field::router_logits, layer, logits);
      std::vector<bool> undetermined;
      layer.routing =
          get_token_counts_and_gather_indices(problem.config, select_experts(layer, logits, undetermined));
      Values<Bounded> exact_logits;
      for (const auto& l : logits) exact_logits.push_back(Bounded::exact(l.value));
      const auto weights = topk_weights<Predicted>(layer, logits);
      const auto bounded_weights = topk_weights<Bounded>(layer, exact_logits);
      Spread spread;
      Spread activation;
      for (std::size_t i = 0; i < weights.size(); ++i)
        spread.add(weights[i].value - bounded_weights[i].ref, bounded_weights[i].noise);
      check(renormalised ? "topk_weights, renormalised" : "topk_weights, not renormalised", spread);
      const auto out =
          act_and_mul<Predicted>(layer, product_values<Predicted>(ProductId::gate_up, layer, nullptr));
      const auto bounded =
          act_and_mul<Bounded>(layer, product_values<Bounded>(ProductId::gate_up, layer, nullptr));
      for (std::size_t i = 0; i < out.size(); ++i)
        activation.add(out[i].value - bounded[i].ref, bounded[i].noise);
      check("intermediate of fp32 registers", activation);
    }
  }

  TEST_CASE("down the chain the noise is at most five times the error of the order that errs most") {
    const auto wide = random_layer(Data::Gaussian, {2048, 768, 4, 2, true}, 4, 7);
    const auto all = layer_spread(wide, "hf", kHopper);
    for (const char* field :
         {"first_gemm", "intermediate", "second_gemm", "hidden_states_unpermute", "hidden_states"}) {
      const Spread& spread = all.at(fmt::format("{} chained", field));
      CAPTURE(field);
      CHECK(spread.pooled() >= 0.2);
    }
  }
}

TEST_SUITE("noise layers") {
  TEST_CASE(
      "a layer's noise is above the rms error of every field on every accumulator, isolated and chained") {
    const auto small = random_layer(Data::Gaussian, {192, 96, 16, 4, true}, 48, 7);
    const auto one_sign = random_layer(Data::OneSign, {192, 96, 16, 4, false}, 48, 7);
    const auto tail = random_layer(Data::HeavyTail, {192, 96, 16, 4, true}, 48, 7);
    const auto wide = random_layer(Data::Gaussian, {2048, 768, 4, 2, true}, 4, 7);
    const auto tokens = random_layer(Data::Gaussian, {96, 16, 16, 4, true}, 1000, 7);
    for (const auto contract : contracts_of_forward()) {
      std::map<std::string, Spread> all;
      for (const auto& [name, problem] : {std::pair{"gaussian", &small},
                                          {"one sign", &one_sign},
                                          {"heavy tail", &tail},
                                          {"wide", &wide},
                                          {"many tokens", &tokens}})
        for (const auto& [order, accumulator] : legal_orders(problem->config.hidden_size))
          for (const auto& [field, spread] : layer_spread(*problem, contract, accumulator)) {
            all[field].add(spread);
            CHECK(spread.inexact == 0);
            if (enough(spread)) check(fmt::format("{}, {}, {}, {}", contract, name, order, field), spread);
          }
      // Isolated, what is made of few terms can seldom be rounded in two ways.
      std::int64_t checked = 0;
      for (const auto& [field, spread] : all) {
        checked += enough(spread);
        if (enough(spread)) check(fmt::format("{}, all, {}", contract, field), spread);
      }
      CHECK(10 * checked >= 7 * std::ssize(all));
    }
  }
}

namespace {

/// Every gradient of one contract, all orders and data together.
void check_gradients(std::string_view contract, const std::vector<const Problem*>& problems) {
  std::map<std::string, Spread> all;
  for (const Problem* problem : problems)
    for (const auto& [order, accumulator] : legal_orders(problem->config.hidden_size))
      for (const auto& [field, spread] : layer_spread(*problem, contract, accumulator, Group::Backward))
        all[field].add(spread);
  std::int64_t checked = 0;
  for (const auto& [field, spread] : all) {
    CHECK(spread.inexact == 0);
    checked += enough(spread);
    if (enough(spread)) check(fmt::format("{}, {}", contract, field), spread);
  }
  CHECK(checked >= 14);
}

/// Two suites, for each takes its half minute. Few weights of float32 logits can be rounded in two ways, and
/// each stands for a whole row of gradients: those take more tokens besides.
void check_gradients(bool float32_logits) {
  const auto gaussian = random_layer(Data::Gaussian, {192, 96, 16, 4, true}, 48, 7);
  const auto octave = random_layer(Data::Octave, {192, 96, 16, 4, false}, 48, 7);
  const auto tail = random_layer(Data::HeavyTail, {192, 96, 16, 4, false}, 48, 7);
  const auto tokens = random_layer(Data::Gaussian, {96, 16, 16, 4, true}, 1000, 7);
  std::vector<const Problem*> problems = {&gaussian, &octave, &tail};
  if (float32_logits) problems.push_back(&tokens);
  for (const auto contract : kKernelContracts)
    if ((dtype_of(Field::router_logits, find_contract(contract)) == DType::Float32) == float32_logits)
      check_gradients(contract, problems);
}

}  // namespace

TEST_SUITE("noise gradients") {
  TEST_CASE("likewise of every gradient, all orders and data together") { check_gradients(false); }
}

TEST_SUITE("noise gradients of float32 logits") {
  TEST_CASE("likewise where logits are kept in float32") { check_gradients(true); }
}
