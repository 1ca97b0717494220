#include "gpu/selfcheck_gradients.h"

#include <cstdio>
#include <string>
#include <vector>

#include "gpu/kernels/grouped_gemm.h"
#include "gpu/kernels/grouped_gemm_grad.h"
#include "gpu/pipeline.h"
#include "gpu/selfcheck_gradient_problem.h"

namespace assay::gpu {
namespace {

std::vector<std::uint16_t> downloaded(const Buffer<bf16>& buffer) {
  std::vector<std::uint16_t> bits(static_cast<std::size_t>(buffer.size()));
  buffer.download(bits.data());
  return bits;
}

bool is_nan(std::uint16_t bits) { return (bits & 0x7fff) > 0x7f80; }

struct GradientResults {
  Buffer<bf16> d_intermediate;
  Buffer<bf16> d_first_gemm;
  Buffer<bf16> d_rows;
  Buffer<bf16> d_down_proj;
  Buffer<bf16> d_gate_up_proj;
  Buffer<bf16> d_gathered;
  explicit GradientResults(const Sizes& sizes)
      : d_intermediate("d_intermediate", sizes.slots() * sizes.config.moe_intermediate_size),
        d_first_gemm("d_first_gemm", sizes.slots() * 2 * sizes.config.moe_intermediate_size),
        d_rows("d_permuted_hidden_states", sizes.slots() * sizes.config.hidden_size),
        d_down_proj("d_down_proj", matrices(sizes)),
        d_gate_up_proj("d_gate_up_proj", 2 * matrices(sizes)),
        d_gathered("d_gate_up_proj of gathered rows", 2 * matrices(sizes)) {}
  static std::int64_t matrices(const Sizes& sizes) {
    return sizes.config.num_experts * sizes.config.hidden_size * sizes.config.moe_intermediate_size;
  }
  template <class Visit>
  void for_each(Visit visit) const {
    visit("d_intermediate", d_intermediate);
    visit("d_first_gemm", d_first_gemm);
    visit("d_rows", d_rows);
    visit("d_down_proj", d_down_proj);
    visit("d_gate_up_proj", d_gate_up_proj);
    visit("d_gate_up_proj, gathered", d_gathered);
  }
};

/// All six products into results that are poisoned, with `config` by the kernels for Hopper, else the
/// portable ones.
GradientResults run(const GradientProblem& problem, const KernelConfigForward* config) {
  GradientResults to(problem.sizes);
  const Stream stream;
  const DeviceRouting routing =
      problem.routing.view(config != nullptr && wide_tiles_wgmma_sm90(*config, problem.sizes));
  const DownDx down_dx{problem.d_second_gemm.data(), problem.down_proj.data(), problem.first_gemm.data(),
                       to.d_intermediate.data(), to.d_first_gemm.data()};
  // Given values, so that one product's fault is not the next one's.
  const GateUpDx gate_up_dx{problem.given.data(), problem.gate_up_proj.data(), to.d_rows.data()};
  const DownDw down_dw{problem.d_second_gemm.data(), problem.intermediate.data(), {to.d_down_proj.data()}};
  const GateUpDw permuted{problem.given.data(), problem.permuted.data(), {to.d_gate_up_proj.data()}, false};
  const GateUpDw gathered{problem.given.data(), problem.x.data(), {to.d_gathered.data()}, true};
  ASSAY_CUDA(cudaDeviceSynchronize());  // poison is written on the default stream
  order_row_tiles(routing, problem.sizes, stream);
  if (config != nullptr) {
    down_dx_wgmma_sm90(down_dx, routing, problem.sizes, *config, stream);
    gate_up_dx_wgmma_sm90(gate_up_dx, routing, problem.sizes, *config, stream);
  } else {
    down_dx_mma_sm80(down_dx, routing, problem.sizes, stream);
    gate_up_dx_mma_sm80(gate_up_dx, routing, problem.sizes, stream);
  }
  if (config != nullptr) {
    // Other stages and the other order of tiles where rows come in single blocks.
    const KernelConfigBackwardDw dw = config->cluster == 1
                                          ? KernelConfigBackwardDw{.tile_order = "width",
                                                                   .pipeline_depth = 2,
                                                                   .pipeline_depth_gathered = 3,
                                                                   .persistent_blocks = 3}
                                          : KernelConfigBackwardDw{};
    down_dw_wgmma_sm90(down_dw, routing, problem.sizes, dw, stream);
    gate_up_dw_wgmma_sm90(permuted, routing, problem.sizes, dw, stream);
    gate_up_dw_wgmma_sm90(gathered, routing, problem.sizes, dw, stream);
  } else {
    down_dw_mma_sm80(down_dw, routing, problem.sizes, stream);
    gate_up_dw_mma_sm80(permuted, routing, problem.sizes, stream);
    gate_up_dw_mma_sm80(gathered, routing, problem.sizes, stream);
  }
  ASSAY_CUDA(cudaStreamSynchronize(stream));
  to.for_each([](const char*, const Buffer<bf16>& buffer) { buffer.verify_guards(); });
  problem.routing.verify_guards();
  return to;
}

std::int64_t compare_results(const std::string& what, const GradientResults& portable,
                             const GradientResults& hopper) {
  std::int64_t total = 0;
  std::int64_t elements = 0;
  std::vector<std::vector<std::uint16_t>> expected;
  portable.for_each([&](const char*, const Buffer<bf16>& buffer) { expected.push_back(downloaded(buffer)); });
  std::size_t field = 0;
  hopper.for_each([&](const char* name, const Buffer<bf16>& buffer) {
    const auto found = downloaded(buffer);
    const auto& wanted = expected[field++];
    std::int64_t wrong = 0;
    for (std::size_t i = 0; i < found.size(); ++i)
      wrong += found[i] != wanted[i] && !(is_nan(found[i]) && is_nan(wanted[i]));
    elements += buffer.size();
    total += wrong;
    if (wrong != 0)
      std::printf("    %-34s %-26s %lld of %lld differ\n", what.c_str(), name, static_cast<long long>(wrong),
                  static_cast<long long>(buffer.size()));
  });
  if (total == 0)
    std::printf("    %-34s equal, %lld elements\n", what.c_str(), static_cast<long long>(elements));
  return total;
}

}  // namespace

std::int64_t count_gradients_that_differ() {
  std::int64_t wrong = 0;
  for (const auto& one : gradient_cases()) {
    const GradientProblem problem(one);
    std::printf("gradients, %s (H %lld, I %lld, E %lld, K %lld, T %lld)\n", one.name,
                static_cast<long long>(one.hidden), static_cast<long long>(one.inter),
                static_cast<long long>(problem.experts()), static_cast<long long>(one.top_k),
                static_cast<long long>(problem.sizes.tokens));
    const GradientResults portable = run(problem, nullptr);
    for (const char* tiles : {"auto", "tall", "wide", "narrow"})
      for (const int cluster : {1, 2}) {
        const KernelConfigForward config{.variant = "wgmma_sm90", .tiles = tiles, .cluster = cluster};
        if (invalid(config) || gpu_unsupported(config, problem.sizes)) continue;
        wrong += compare_results(std::string("tiles=") + tiles + ", cluster=" + std::to_string(cluster),
                                 portable, run(problem, &config));
      }
  }
  return wrong;
}

}  // namespace assay::gpu
