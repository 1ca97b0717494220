#include "gpu/selfcheck_gradients.h"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "gpu/device_problem.h"
#include "gpu/kernels/grouped_gemm.h"
#include "gpu/kernels/grouped_gemm_grad.h"
#include "gpu/pipeline.h"

namespace assay::gpu {
namespace {

struct GradientCase {
  const char* name;
  std::int64_t hidden;
  std::int64_t inter;
  std::int64_t top_k;
  std::vector<std::int32_t> counts;  // rows of each expert; their sum is a multiple of top_k
  int nan_expert = -1;               // whose rows are NaN
};

// Rows at the edges of steps of 16, of stages of 64 and of tiles of 128 and 144; NaN before and behind them.
const GradientCase kGradientCases[] = {
    {"tails", 200, 104, 2, {0, 1, 15, 16, 17, 33, 127, 128, 129, 0}},
    {"tails, NaN beside", 512, 264, 2, {0, 1, 15, 16, 17, 33, 127, 128, 129, 0}, 4},
    {"NaN behind", 264, 512, 1, {63, 64, 65, 143, 144, 145, 31}, 6},
    {"one takes all", 256, 128, 4, {0, 0, 700, 0}},
    {"every expert takes all", 320, 96, 5, {37, 37, 37, 37, 37}},
    {"no rows", 64, 32, 2, {0, 0, 0}},
    {"one row", 64, 32, 1, {0, 0, 1, 0}},
    {"few tokens, NaN between", 512, 256, 4, {16, 16, 0, 1, 15, 16}, 3},
    {"many rows", 512, 768, 4, {1000, 3, 517, 528}, 1},
};

/// Random values, NaN in [nan_first, nan_end).
Buffer<bf16> random_buffer(const char* name, std::int64_t count, std::uint64_t seed,
                           std::int64_t nan_first = 0, std::int64_t nan_end = 0) {
  std::mt19937_64 random(seed);
  std::vector<std::uint16_t> bits(static_cast<std::size_t>(count));
  for (auto& value : bits) {
    // Signed, between 1/4 and 4.
    const std::uint64_t word = random();
    value = static_cast<std::uint16_t>((word & 0x8000) | (0x3e80 + (word >> 16) % 0x200));
  }
  std::fill(bits.begin() + nan_first, bits.begin() + nan_end, std::uint16_t{0x7fc0});
  Buffer<bf16> buffer(name, count);
  buffer.upload(bits.data(), 0, count);
  return buffer;
}

std::vector<std::uint16_t> downloaded(const Buffer<bf16>& buffer) {
  std::vector<std::uint16_t> bits(static_cast<std::size_t>(buffer.size()));
  buffer.download(bits.data());
  return bits;
}

bool is_nan(std::uint16_t bits) { return (bits & 0x7fff) > 0x7f80; }

/// A case in device memory: what the products read, and both variants' results.
struct GradientProblem {
  Sizes sizes;
  RoutingBuffers routing;
  Buffer<bf16> down_proj;
  Buffer<bf16> gate_up_proj;
  Buffer<bf16> x;
  Buffer<bf16> permuted;
  Buffer<bf16> d_second_gemm;
  Buffer<bf16> first_gemm;
  Buffer<bf16> intermediate;
  Buffer<bf16> given;

  explicit GradientProblem(const GradientCase& one)
      : sizes(sizes_of(one)),
        routing(sizes),
        down_proj(random_buffer("down_proj", experts() * one.hidden * one.inter, 1)),
        gate_up_proj(random_buffer("gate_up_proj", experts() * 2 * one.inter * one.hidden, 2)),
        x(random_buffer("x", sizes.tokens * one.hidden, 3)) {
    const auto rows_of = [&](const char* name, std::int64_t width, std::uint64_t seed) {
      std::int64_t first = 0;
      std::int64_t end = 0;
      if (one.nan_expert >= 0) {
        const auto expert = one.counts.begin() + one.nan_expert;
        first = std::accumulate(one.counts.begin(), expert, std::int64_t{0});
        end = first + *expert;
      }
      return random_buffer(name, sizes.slots() * width, seed, first * width, end * width);
    };
    permuted = rows_of("permuted", one.hidden, 4);
    d_second_gemm = rows_of("d_second_gemm", one.hidden, 5);
    first_gemm = rows_of("first_gemm", 2 * one.inter, 6);
    intermediate = rows_of("intermediate", one.inter, 7);
    given = rows_of("given d_first_gemm", 2 * one.inter, 8);
    std::vector<std::int32_t> slots(static_cast<std::size_t>(sizes.slots()));
    std::iota(slots.begin(), slots.end(), 0);
    std::shuffle(slots.begin(), slots.end(), std::mt19937_64(9));
    routing.gather_indices.upload(slots.data(), 0, sizes.slots());
    routing.counts.upload(one.counts.data(), 0, experts());
  }
  std::int64_t experts() const { return sizes.config.num_experts; }

 private:
  static Sizes sizes_of(const GradientCase& one) {
    Sizes sizes{};
    sizes.config = {one.hidden, one.inter, static_cast<std::int64_t>(one.counts.size()), one.top_k, true};
    sizes.tokens = std::accumulate(one.counts.begin(), one.counts.end(), std::int64_t{0}) / one.top_k;
    return sizes;
  }
};

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
  const DownDw down_dw{problem.d_second_gemm.data(), problem.intermediate.data(), to.d_down_proj.data()};
  const GateUpDw permuted{problem.given.data(), problem.permuted.data(), to.d_gate_up_proj.data(), false};
  const GateUpDw gathered{problem.given.data(), problem.x.data(), to.d_gathered.data(), true};
  ASSAY_CUDA(cudaDeviceSynchronize());  // poison is written on the default stream
  order_row_tiles(routing, problem.sizes, stream);
  if (config != nullptr) {
    down_dx_wgmma_sm90(down_dx, routing, problem.sizes, *config, stream);
    gate_up_dx_wgmma_sm90(gate_up_dx, routing, problem.sizes, *config, stream);
  } else {
    down_dx_mma_sm80(down_dx, routing, problem.sizes, stream);
    gate_up_dx_mma_sm80(gate_up_dx, routing, problem.sizes, stream);
  }
  const auto down = config != nullptr ? down_dw_wgmma_sm90 : down_dw_mma_sm80;
  const auto gate_up = config != nullptr ? gate_up_dw_wgmma_sm90 : gate_up_dw_mma_sm80;
  down(down_dw, routing, problem.sizes, stream);
  gate_up(permuted, routing, problem.sizes, stream);
  gate_up(gathered, routing, problem.sizes, stream);
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
  for (const auto& one : kGradientCases) {
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
