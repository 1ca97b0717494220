#include "gpu/selfcheck_races.h"

#include <cstdio>
#include <string>

#include "gpu/kernels/grouped_gemm.h"
#include "gpu/pipeline.h"
#include "gpu/selfcheck_compare.h"
#include "gpu/selfcheck_problem.h"

namespace assay::gpu {
namespace {

struct Small {
  MoeConfig config;  // H, I, E, K
  std::int64_t tokens;
  bool backward;
};

/// Sizes that end within a panel of 64 columns and such that do not; two tiles of an expert, of which blocks
/// make pairs; narrow tiles; and the router's and the order's kernels for many tokens, of few experts and of
/// more than one tile has.
constexpr Small kSmall[] = {
    {{136, 72, 2, 1, true}, 300, true}, {{128, 64, 2, 1, true}, 300, true},
    {{136, 72, 4, 2, true}, 12, true},  {{16, 8, 4, 1, true}, 2100, false},
    {{16, 8, 4, 1, true}, 8200, false}, {{72, 8, 130, 2, true}, 2100, false},
};

/// Gradients of weights that those of the backward pass are added to: this one's own.
FieldSet gradients_of_before(const Candidate& other) {
  FieldSet previous;
  for (const Field field : {Field::d_down_proj, Field::d_gate_up_proj, Field::d_gate})
    previous.set(field, other.fields.at(field));
  return previous;
}

std::int64_t check(const Small& one) {
  std::printf("H %lld, I %lld, T %lld\n", static_cast<long long>(one.config.hidden_size),
              static_cast<long long>(one.config.moe_intermediate_size), static_cast<long long>(one.tokens));
  Problem problem = selfcheck_problem(one.config, one.tokens, 1, Load::Natural);
  if (!one.backward) problem.output_gradient = {};
  std::int64_t wrong = 0;
  for (const char* contract : {"hf", "fused_fp32"}) {
    GpuOptions options;
    options.contract = contract;
    options.kernel_config_fwd.variant = "mma_sm80";
    const Candidate base = run_gpu_fused(problem, options);
    const auto run = [&](const std::string& what) {
      wrong += compare_candidates((std::string(contract) + ", " + what).c_str(), base,
                                  run_gpu_fused(problem, options), true);
    };
    options.permute_x = false;
    options.permute_y = true;
    run("mma_sm80, other flags");
    if (!has_wgmma_sm90()) continue;
    if (!one.backward) {
      options.kernel_config_fwd = {.variant = "wgmma_sm90"};
      run("wgmma_sm90");
      continue;
    }
    problem.previous = gradients_of_before(base);
    const Candidate added = run_gpu_fused(problem, options);
    options.kernel_config_fwd = {.variant = "wgmma_sm90"};
    wrong += compare_candidates((std::string(contract) + ", added").c_str(), added,
                                run_gpu_fused(problem, options), true);
    problem.previous = {};
    for (const char* tiles : {"tall", "wide", "narrow"})
      for (const int cluster : {1, 2}) {
        options.permute_x = cluster == 1;
        options.permute_y = cluster == 2;
        options.debug_fields = cluster == 1;
        options.kernel_config_fwd = {.variant = "wgmma_sm90", .tiles = tiles, .cluster = cluster};
        if (!invalid(options) && !gpu_unsupported(options.kernel_config_fwd, problem.sizes()))
          run(std::string(tiles) + (cluster == 1 ? ", single blocks" : ", pairs"));
      }
  }
  return wrong;
}

}  // namespace

std::int64_t count_small_runs_that_differ() {
  std::int64_t wrong = 0;
  for (const Small& one : kSmall) wrong += check(one);
  return wrong;
}

}  // namespace assay::gpu
