#include "gpu/selfcheck_weight_gradients.h"

#include <bit>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "gpu/kernels/grouped_gemm_grad.h"
#include "gpu/selfcheck_gradient_problem.h"
#include "gpu/weight_gradient_buffer.h"
#include "harness/contract/bf16.h"

namespace assay::gpu {
namespace {

enum class Weight { Down, GateUp, GateUpGathered };
constexpr Weight kWeights[] = {Weight::Down, Weight::GateUp, Weight::GateUpGathered};

/// What is expected and found of an expert's matrices, elements as float; bf16 converts without loss.
using GradientValues = std::vector<float>;

std::int64_t elements_of(const GradientProblem& problem, Weight weight) {
  const auto& config = problem.sizes.config;
  return problem.experts() * config.hidden_size * config.moe_intermediate_size *
         (weight == Weight::Down ? 1 : 2);
}

GradientValues random_values(std::int64_t count) {
  const Buffer<bf16> random = random_buffer("gradients of before", count, 11);
  std::vector<Bf16> bits(static_cast<std::size_t>(count));
  random.download(bits.data());
  GradientValues values;
  for (const Bf16 x : bits) values.push_back(to_float(x));
  return values;
}

void upload(WeightGradientBuffer& buffer, const GradientValues& values) {
  if (buffer.fp32()) return buffer.bytes().upload(values.data(), 0, buffer.bytes().size());
  std::vector<Bf16> rounded;
  for (const float x : values) rounded.push_back(round_to_bf16(x));
  buffer.bytes().upload(rounded.data(), 0, buffer.bytes().size());
}

GradientValues download(const WeightGradientBuffer& buffer) {
  GradientValues values(static_cast<std::size_t>(buffer.size()));
  if (buffer.fp32()) {
    buffer.bytes().download(values.data());
    return values;
  }
  std::vector<Bf16> bits(values.size());
  buffer.bytes().download(bits.data());
  for (std::size_t i = 0; i < bits.size(); ++i) values[i] = to_float(bits[i]);
  return values;
}

void launch(const GradientProblem& problem, Weight weight, const WeightGradient& to, bool hopper,
            cudaStream_t stream) {
  const DeviceRouting routing = problem.routing.view();
  if (weight == Weight::Down) {
    const DownDw product{problem.d_second_gemm.data(), problem.intermediate.data(), to};
    if (hopper)
      down_dw_wgmma_sm90(product, routing, problem.sizes, {}, stream);
    else
      down_dw_mma_sm80(product, routing, problem.sizes, stream);
    return;
  }
  const bool gather = weight == Weight::GateUpGathered;
  const GateUpDw product{problem.given.data(), gather ? problem.x.data() : problem.permuted.data(), to,
                         gather};
  if (hopper)
    gate_up_dw_wgmma_sm90(product, routing, problem.sizes, {}, stream);
  else
    gate_up_dw_mma_sm80(product, routing, problem.sizes, stream);
}

GradientValues run(const GradientProblem& problem, Weight weight, const WeightGradientOptions& options,
                   const GradientValues& before, bool hopper) {
  WeightGradientBuffer to("a weight's gradient", elements_of(problem, weight), options);
  if (options.added) upload(to, before);
  const Stream stream;
  ASSAY_CUDA(cudaDeviceSynchronize());
  order_row_tiles(problem.routing.view(), problem.sizes, stream);
  launch(problem, weight, to.view(), hopper, stream);
  ASSAY_CUDA(cudaStreamSynchronize(stream));
  to.bytes().verify_guards();
  problem.routing.verify_guards();
  return download(to);
}

/// The step behind cuBLAS's products, expert by expert.
GradientValues keep(const GradientProblem& problem, const WeightGradientOptions& options,
                    const GradientValues& sums, const GradientValues& before,
                    const std::vector<std::int32_t>& counts) {
  const auto elements = static_cast<std::int64_t>(sums.size());
  WeightGradientBuffer to("a weight's gradient", elements, options);
  upload(to, before);
  Buffer<float> product("sums", elements);
  product.upload(sums.data(), 0, elements);
  const std::int64_t each = elements / problem.experts();
  const Stream stream;
  ASSAY_CUDA(cudaDeviceSynchronize());
  for (std::size_t expert = 0; expert < counts.size(); ++expert) {
    if (options.added && counts[expert] == 0) continue;
    const std::int64_t first = static_cast<std::int64_t>(expert) * each;
    keep_gradient(product.data() + first, to.view(), first, each, stream);
  }
  ASSAY_CUDA(cudaStreamSynchronize(stream));
  to.bytes().verify_guards();
  return download(to);
}

/// What the sums leave behind, by the definition in gradient_store.h.
GradientValues expected(const WeightGradientOptions& options, const GradientValues& sums,
                        const GradientValues& before, const std::vector<std::int32_t>& counts) {
  const auto rounded = [](float x) { return to_float(round_to_bf16(x)); };
  GradientValues values(sums.size());
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const float product = options.products_rounded ? rounded(sums[i]) : sums[i];
    const float kept = options.added ? product + before[i] : product;
    values[i] = options.fp32 ? kept : rounded(kept);
    if (options.added && counts[i / (sums.size() / counts.size())] == 0) values[i] = before[i];
  }
  return values;
}

std::int64_t differing(const GradientValues& a, const GradientValues& b) {
  std::int64_t count = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    count += std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]) &&
             !(std::isnan(a[i]) && std::isnan(b[i]));
  return count;
}

std::int64_t check(const GradientCase& one, Weight weight) {
  const GradientProblem problem(one);
  const GradientValues before = random_values(elements_of(problem, weight));
  const GradientValues sums = run(problem, weight, {.fp32 = true}, before, false);
  std::int64_t total = 0;
  int ways = 0;
  const auto compare = [&](const char* who, const WeightGradientOptions& options,
                           const GradientValues& found) {
    const std::int64_t wrong = differing(found, expected(options, sums, before, one.counts));
    total += wrong;
    ++ways;
    if (wrong != 0)
      std::printf("    %s, %s%s%s: %lld of %zu differ\n", who, options.fp32 ? "float32" : "bf16",
                  options.added ? ", added" : "", options.products_rounded ? ", products rounded" : "",
                  static_cast<long long>(wrong), found.size());
  };
  for (const bool fp32 : {false, true})
    for (const bool added : {false, true})
      for (const bool products_rounded : {false, true}) {
        const WeightGradientOptions options{fp32, added, products_rounded};
        compare("wgmma_sm90", options, run(problem, weight, options, before, true));
        compare("mma_sm80", options, run(problem, weight, options, before, false));
        compare("behind cuBLAS", options, keep(problem, options, sums, before, one.counts));
      }
  constexpr const char* kNames[] = {"d_down_proj", "d_gate_up_proj", "d_gate_up_proj, gathered"};
  if (total == 0)
    std::printf("    %-26s equal in %d ways, %zu elements each\n", kNames[static_cast<int>(weight)], ways,
                sums.size());
  return total;
}

}  // namespace

std::int64_t count_weight_gradients_that_differ(bool few) {
  std::int64_t wrong = 0;
  for (const GradientCase& one : few ? gradient_cases().first(2) : gradient_cases()) {
    std::printf("gradients of weights, %s\n", one.name);
    for (const Weight weight : kWeights) wrong += check(one, weight);
  }
  return wrong;
}

}  // namespace assay::gpu
