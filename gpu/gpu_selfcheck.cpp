// `gpu_selfcheck`: runs the GPU pipelines on problems of its own and compares them bit by bit with one
// another and, on sampled elements, with the tensor core's model. `assay verify` is the judge; this finds a
// broken kernel in seconds. Exit 1 on a difference, 77 without a device. `--small` leaves out the full-width
// problems and the repeated runs (for compute-sanitizer), `--gradients` all but the quick forms of silu,
// sums of rows and the gradients on routings made by hand, `--races` all but a few tiny problems that launch
// every kernel (for racecheck); `--dump DIR CASE` writes one problem and its results as raw arrays instead.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "gpu/kernels/grouped_gemm.h"
#include "gpu/pipeline.h"
#include "gpu/repeat_check.h"
#include "gpu/selfcheck_compare.h"
#include "gpu/selfcheck_gradients.h"
#include "gpu/selfcheck_problem.h"
#include "gpu/selfcheck_products.h"
#include "gpu/selfcheck_races.h"
#include "gpu/selfcheck_row_sums.h"
#include "gpu/selfcheck_weight_gradients.h"
#include "harness/contract/error.h"

namespace {

using namespace assay;

struct Case {
  const char* name;
  MoeConfig config;  // H, I, E, K
  std::int64_t tokens;
  gpu::Load load;
};

// clang-format off
const Case kCases[] = {
    {"no tokens",            {64, 32, 8, 2, true},         0,    gpu::Load::Natural},
    {"one token",            {2048, 768, 128, 8, true},    1,    gpu::Load::Natural},
    {"odd multiples of 8",   {200, 104, 12, 3, false},     37,   gpu::Load::Natural},
    {"smallest",             {8, 8, 2, 1, true},           5,    gpu::Load::Natural},
    {"ties",                 {64, 64, 32, 8, true},        129,  gpu::Load::Ties},
    {"one takes all",        {256, 128, 64, 4, true},      700,  gpu::Load::OneTakesAll},
    {"skewed",               {256, 64, 128, 8, true},      1500, gpu::Load::Skewed},
    {"many experts",         {512, 256, 512, 10, true},    300,  gpu::Load::Natural},
    {"30B-A3B, 16 tokens",   {2048, 768, 128, 8, true},    16,   gpu::Load::Natural},
    {"30B-A3B, 1024 tokens", {2048, 768, 128, 8, true},    1024, gpu::Load::Natural},
    {"two tiles per expert", {512, 256, 16, 4, true},      800,  gpu::Load::Natural},
    {"the same, odd sizes",  {200, 104, 12, 3, false},     777,  gpu::Load::Skewed},
    {"many slots per token", {2048, 64, 40, 20, true},     1100, gpu::Load::Natural},
};
// clang-format on

const auto& compare = gpu::compare_candidates;

// Sampled elements of the products against the model, each from the candidate's own upstream fields.
std::int64_t compare_with_model(const Problem& problem, const Candidate& candidate) {
  if (problem.sizes().tokens == 0) return 0;
  constexpr int kSamples = 500;
  std::int64_t total = 0;
  std::printf("    %-28s", "tensor-core model");
  for (const ProductRow& row : kProducts) {
    const ProductId product = row.id;
    if (product_of(row.made) != product || !candidate.fields.has(row.made)) continue;
    const std::int64_t wrong = gpu::count_samples_that_differ(problem, candidate, product, kSamples);
    std::printf(" %s %lld,", std::string(name(product)).c_str(), static_cast<long long>(wrong));
    total += wrong;
  }
  std::printf(" of %d sampled differ\n", kSamples);
  return total;
}

// Gradients of weights of a gigabyte are compared once, not in every variant.
bool heavy(const MoeConfig& config) {
  return config.num_experts * config.moe_intermediate_size * config.hidden_size > (std::int64_t{1} << 25);
}

Problem without_backward(Problem problem) {
  problem.output_gradient = {};
  return problem;
}

std::int64_t check(const Case& one) {
  std::printf("%s (H %lld, I %lld, E %lld, K %lld, T %lld)\n", one.name,
              static_cast<long long>(one.config.hidden_size),
              static_cast<long long>(one.config.moe_intermediate_size),
              static_cast<long long>(one.config.num_experts), static_cast<long long>(one.config.top_k),
              static_cast<long long>(one.tokens));
  const Problem problem = gpu::selfcheck_problem(one.config, one.tokens, 1, one.load);
  GpuOptions portable;
  portable.kernel_config_fwd.variant = "mma_sm80";
  const Candidate base = run_gpu_fused(problem, portable);
  std::int64_t wrong = compare_with_model(problem, base);
  // cuBLAS may split K: its bits are information.
  compare("cublas", base, run_gpu_cublas(problem), false);
  compare("cublas, grouped", base, run_gpu_cublas_grouped(without_backward(problem)), false);
  wrong += compare("both passes", base, run_gpu_fused(problem), true);
  const Problem lighter = heavy(one.config) ? without_backward(problem) : problem;
  const auto fused = [&](const char* what, const GpuOptions& options) {
    wrong += compare(what, base, run_gpu_fused(lighter, options), true);
  };
  GpuOptions options = portable;
  options.permute_x = false;
  options.permute_y = true;
  options.debug_fields = false;
  fused("mma_sm80, other flags", options);
  options = portable;
  options.dX_only = true;
  fused("mma_sm80, dX_only", options);
  options = portable;
  options.dW_only = true;
  fused("mma_sm80, dW_only", options);
  options = portable;
  options.contract = "fused_fp32";
  const Candidate fp32 = run_gpu_fused(lighter, options);
  compare("fused_fp32", base, fp32, false);
  try {
    for (const bool permute_x : {true, false})
      for (const bool permute_y : {false, true}) {
        options = {.permute_x = permute_x,
                   .permute_y = permute_y,
                   .debug_fields = permute_x,
                   .kernel_config_fwd = {}};
        options.kernel_config_fwd.variant = "wgmma_sm90";
        const std::string what =
            std::string("wgmma_sm90") + (permute_x ? ", permute_x" : "") + (permute_y ? ", permute_y" : "");
        fused(what.c_str(), options);
      }
    for (const int cluster : {1, 2}) {
      options = {.permute_x = cluster == 2, .kernel_config_fwd = {.cluster = cluster}};
      options.kernel_config_fwd.variant = "wgmma_sm90";
      fused(cluster == 1 ? "wgmma_sm90, single blocks" : "wgmma_sm90, clusters of 2", options);
      options.permute_x = !options.permute_x;
      options.permute_y = cluster == 2;
      fused(cluster == 1 ? "the same, permute_x" : "the same, permute_y", options);
    }
    for (const char* tiles : {"tall", "wide", "narrow"})
      for (const bool permute_x : {true, false}) {
        options = {
            .permute_x = permute_x,
            .kernel_config_fwd = {.variant = "wgmma_sm90", .tiles = tiles, .cluster = permute_x ? 0 : 1}};
        const std::string what = std::string("tiles=") + tiles + (permute_x ? ", permute_x" : "");
        if (!gpu_unsupported(options.kernel_config_fwd, problem.sizes())) fused(what.c_str(), options);
      }
    options = {};
    options.kernel_config_fwd = {.variant = "wgmma_sm90", .tiles = "tall"};
    options.kernel_config_bwd_dX = KernelConfigBackwardDx{.variant = "wgmma_sm90", .tiles = "wide"};
    options.kernel_config_bwd_dW.variant = "mma_sm80";
    fused("tall, dX wide, dW mma_sm80", options);
    options.kernel_config_fwd.tiles = "wide";
    options.kernel_config_bwd_dX->variant = "mma_sm80";
    options.kernel_config_bwd_dW.variant = "wgmma_sm90";
    fused("wide, dX mma_sm80, dW wgmma", options);
    options = {};
    options.contract = "fused_fp32";
    wrong += compare("wgmma_sm90, fused_fp32", fp32, run_gpu_fused(lighter, options), true);
  } catch (const InputError& error) {
    std::printf("    wgmma_sm90 not run: %s\n", error.what());
    return wrong + 1;
  }
  return wrong;
}

// Bits must not depend on what ran before or how it was launched.
std::int64_t check_repeats(const Case& one) {
  Problem problem = gpu::selfcheck_problem(one.config, one.tokens, 1, one.load);
  if (heavy(one.config)) problem.output_gradient = {};
  const Problem other = gpu::selfcheck_problem(one.config, one.tokens, 2, gpu::Load::Natural);
  std::int64_t wrong = 0;
  for (const char* variant : {"wgmma_sm90", "mma_sm80"}) {
    if (std::string(variant) == "wgmma_sm90" && !gpu::has_wgmma_sm90()) continue;
    GpuOptions options;
    options.kernel_config_fwd.variant = variant;
    const std::int64_t differing = gpu::count_runs_that_differ(problem, other, options);
    std::printf("%s, %s: %lld of 22 repeated runs differ\n", one.name, variant,
                static_cast<long long>(differing));
    wrong += differing;
  }
  return wrong;
}

void write(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

void dump(const std::filesystem::path& folder, const Case& one) {
  std::filesystem::create_directories(folder);
  const Problem problem = gpu::selfcheck_problem(one.config, one.tokens, 1, one.load);
  write(folder / "input", problem.input.bytes());
  write(folder / "d_hidden_states", problem.output_gradient.bytes());
  write(folder / "gate", problem.gate.bytes());
  for (const Field field : {Field::gate_up_proj, Field::down_proj}) {
    std::ofstream out(folder / std::string(name(field)), std::ios::binary);
    for (std::int64_t e = 0; e < one.config.num_experts; ++e) {
      const auto matrix = problem.experts(field, e);
      out.write(reinterpret_cast<const char*>(matrix.values.data()),
                static_cast<std::streamsize>(matrix.values.size_bytes()));
    }
  }
  for (const auto& [suffix, candidate] :
       {std::pair{".fused", run_gpu_fused(problem)}, std::pair{".cublas", run_gpu_cublas(problem)}})
    for (const auto& field : kFields)
      if (candidate.fields.has(field.id))
        write(folder / (std::string(field.name) + suffix), candidate.fields.at(field.id).bytes());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (auto reason = gpu_unavailable()) {
      std::printf("SKIP: %s\n", reason->c_str());
      return 77;
    }
    if (argc == 4 && std::string(argv[1]) == "--dump") {
      const Case* const one = &kCases[std::stoul(argv[3])];
      dump(argv[2], *one);
      return 0;
    }
    std::int64_t wrong = 0;
    if (gpu::has_wgmma_sm90()) wrong += gpu::count_silu_differences();
    std::printf("quick silu: %lld of all bf16 and all fp32 arguments differ\n",
                static_cast<long long>(wrong));
    wrong += gpu::count_row_sums_that_differ();
    const auto asked = [&](const char* option) { return argc == 2 && std::string(argv[1]) == option; };
    const bool small = asked("--small");
    if (!asked("--gradients")) wrong += gpu::count_small_runs_that_differ();
    if (asked("--races")) {
      if (gpu::has_wgmma_sm90()) wrong += gpu::count_weight_gradients_that_differ(true);
    } else if (gpu::has_wgmma_sm90()) {
      wrong += gpu::count_gradients_that_differ();
      wrong += gpu::count_weight_gradients_that_differ(false);
    }
    for (const auto& one : kCases) {
      if (asked("--gradients") || asked("--races")) break;
      if (small && one.config.hidden_size * one.config.num_experts > 64 * 1024) continue;
      wrong += check(one);
      if (!small) wrong += check_repeats(one);
    }
    std::printf(wrong == 0 ? "all equal\n" : "%lld differences\n", static_cast<long long>(wrong));
    return wrong == 0 ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_selfcheck: %s\n", error.what());
    return 3;
  }
}
