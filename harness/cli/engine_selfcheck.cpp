// `engine_selfcheck`: the GPU as engine against the CPU. Single products first, then comparisons of whole
// fields, then judgements of right and of faulty candidates with and without the engine: same verdicts,
// counts and figures. Exit 1 on a difference, 77 without a device.
// `--small` leaves the judgements out (for compute-sanitizer).
#include <atomic>
#include <cstdio>
#include <exception>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "fixtures/fixtures.h"
#include "gpu/engine/gpu_engine.h"
#include "gpu/pipeline.h"
#include "harness/cli/engine_choice.h"
#include "harness/cli/engine_fields.h"
#include "harness/cli/engine_products.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/problems.h"
#include "harness/contract/error.h"
#include "harness/contract/precision_contract.h"
#include "harness/judge/judge.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"
#include "reports/json.h"

namespace {

using namespace assay;
using namespace assay::cli;

/// Everything the judge has to say about a candidate, as text; times left out.
std::string judgement(const Problem& problem, const Candidate& candidate, const Engine* engine) {
  JudgeOptions options;
  options.engine = engine;
  options.reference = make_reference;
  Report report;
  report.cases.push_back(judge(problem, candidate, options));
  report.cases.back().seconds = 0.0;
  return to_json(report);
}

/// A prediction as an H200 would give it, a reference, and predictions with a fault in each product.
std::vector<Candidate> candidates(const Problem& problem) {
  const auto& contract = find_contract("hf");
  const auto accumulators = huggingface_accumulators(problem, "hf");
  std::vector<Candidate> all = {predict_forward(problem, contract, accumulators), forward(problem, contract)};
  constexpr std::int64_t kFullWidth = 2048;  // there one fault is enough: the CPU's part takes seconds each
  for (const Field field : {Field::router_logits, Field::first_gemm, Field::second_gemm}) {
    if (problem.config.hidden_size >= kFullWidth && field != Field::second_gemm) continue;
    all.push_back(predict_forward(problem, contract, accumulators,
                                  Fault{.kind = FaultKind::DropLastK, .field = field, .amount = 1}));
    all.back().name = fmt::format("predicted, the last of K missing in {}", name(field));
  }
  if (problem.sizes().tokens == 0) return all;
  all.push_back(forward(problem, contract));
  all.back().name = "a NaN, an Inf and a wrong value in hidden_states";
  const auto values = all.back().fields.at(Field::hidden_states).as<Bf16>();
  values[0] = {0x7fc0};
  values[values.size() / 2] = {0x7f80};
  values[values.size() - 1] = {0x4580};
  return all;
}

std::int64_t compare_judgements() {
  std::int64_t wrong = 0;
  for (const auto& fixture : fixtures()) {
    if (fixture.tokens() > 1024) continue;  // `assay verify --engine cpu` against `--engine gpu` is for those
    const Problem problem = load_fixture(fixture.name);
    for (const auto& candidate : candidates(problem)) {
      const Engine engine = *make_engine(kEngineGpu);
      const bool equal = judgement(problem, candidate, nullptr) == judgement(problem, candidate, &engine);
      const bool used =
          (engine.taken->products > 0 && engine.taken->comparisons > 0) || fixture.tokens() == 0;
      if (!equal || !used)
        std::printf("  %s, %s: %s\n", problem.name.c_str(), candidate.name.c_str(),
                    equal ? "the engine took nothing over" : "judgements differ");
      wrong += !equal || !used;
    }
  }
  return wrong;
}

/// Of both passes, experts' gradients by intervals that stay on the device: of the right candidate, and of
/// one with a NaN, an Inf, a wrong word and flipped ones in both gradients.
std::int64_t compare_gradients() {
  std::int64_t wrong = 0;
  const auto& contract = find_contract("hf");
  for (const char* name : {"empty_experts", "long_segment"}) {
    const Problem problem = load_fixture(name);
    const Candidate right = both_passes(problem, contract);
    Candidate hostile = right;
    hostile.name = "a NaN, an Inf, a wrong word and flipped ones in experts' gradients";
    for (const Field field : {Field::d_down_proj, Field::d_gate_up_proj}) {
      const auto values = hostile.fields.at(field).as<Bf16>();
      values[0] = {0x7fc0};
      values[values.size() / 2] = {0x7f80};
      values[values.size() - 1] = {0x4580};
      for (std::size_t i = values.size() / 4; i < values.size() / 3; ++i) values[i].bits ^= 1;
    }
    for (const Candidate* candidate : {&right, &std::as_const(hostile)}) {
      Engine engine = *make_engine(kEngineGpu);
      std::atomic<std::int64_t> kept = 0;
      engine.kept = [&kept, on_device = engine.kept](const auto& product, const auto& errors) {
        auto made = on_device(product, errors);
        kept += made != nullptr;
        return made;
      };
      const bool equal = judgement(problem, *candidate, nullptr) == judgement(problem, *candidate, &engine);
      if (!equal || kept == 0)
        std::printf("  %s, both passes, %s: %s\n", name, candidate->name.c_str(),
                    equal ? "the engine kept nothing" : "judgements differ");
      wrong += !equal || kept == 0;
    }
  }
  return wrong;
}

/// The check must be seen to fail: an accumulator that keeps one bit less is another tensor core.
bool wrong_constant_is_found() {
  const auto broken = gpu_engine({}, 24);
  const ProductComparison products = compare_products(*broken, false);
  std::printf("an accumulator of 24 fractional bits: %lld elements differ\n",
              static_cast<long long>(products.differing));
  const Problem problem = load_fixture("odd");
  try {
    predict_forward(problem, find_contract("hf"), huggingface_accumulators(problem, "hf"), {}, &*broken);
  } catch (const InputError& error) {
    std::printf("refused: %s\n", error.what());
    return products.differing > 0;
  }
  std::printf("expected the sampled rows to refuse it, found that they accept it\n");
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  const bool small = argc == 2 && std::string_view(argv[1]) == "--small";
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    if (const auto reason = gpu_unavailable()) {
      std::printf("SKIP: %s\n", reason->c_str());
      return 77;
    }
    const Engine engine = *gpu_engine({});
    const ProductComparison products = compare_products(engine, true);
    std::printf("%lld products, %lld elements: %lld differ from the CPU's\n",
                static_cast<long long>(products.products), static_cast<long long>(products.elements),
                static_cast<long long>(products.differing));
    const bool equal = products.products > 0 && products.differing == 0 && products.declined == 0;
    const std::int64_t figures = compare_fields(engine);
    std::printf("cells, sums and reports of whole fields that differ: %lld\n",
                static_cast<long long>(figures));
    if (small) return equal && figures == 0 ? 0 : 1;
    const std::int64_t gradients = compare_gradients();
    std::printf("judgements of both passes that differ: %lld\n", static_cast<long long>(gradients));
    const std::int64_t judgements = compare_judgements();
    std::printf("judgements that differ: %lld\n", static_cast<long long>(judgements));
    const bool found = wrong_constant_is_found() && planted_differences_are_found(engine);
    return equal && figures == 0 && judgements + gradients == 0 && found ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "engine_selfcheck: %s\n", error.what());
    return 3;
  }
}
