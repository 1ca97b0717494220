// `gpu_bench MODEL TOKENS... [variable=value...]`: times the fused layer on a random problem of a released
// model's size. MODEL is 30b, 235b or next80b, with "-skewed" for a routing in which the same experts take
// most rows. Variables: variant, tiles, permute_x, permute_y, depth_gate_up, depth_down, raster, blocks,
// cluster, contract, and of gradients tiles_dx, cluster_dx, raster_dx (after those of the forward pass),
// order_dw, depth_dw, depth_gathered_dw; backward=true times the backward pass, too. Run `gpu_selfcheck`
// first: only verified kernels are worth timing.
#include <algorithm>
#include <cstdio>
#include <string>

#include "gpu/bench.h"
#include "gpu/selfcheck_problem.h"
#include "harness/contract/error.h"

namespace {

using namespace assay;

struct Model {
  const char* name;
  MoeConfig config;
};
const Model kModels[] = {{"30b", {2048, 768, 128, 8, true}},
                         {"235b", {4096, 1536, 128, 8, true}},
                         {"next80b", {2048, 512, 512, 10, true}}};

void set_dx(GpuOptions& options, const std::string& variable, const std::string& value) {
  if (!options.kernel_config_bwd_dX) options.kernel_config_bwd_dX = options.kernel_config_fwd;
  auto& config = *options.kernel_config_bwd_dX;
  if (variable == "tiles_dx")
    config.tiles = value;
  else if (variable == "cluster_dx")
    config.cluster = std::stoi(value);
  else if (variable == "raster_dx")
    config.raster_rows = std::stoi(value);
  else
    throw UsageError("expected tiles_dx, cluster_dx or raster_dx, found " + variable);
}

void set(GpuOptions& options, const std::string& variable, const std::string& value) {
  auto& config = options.kernel_config_fwd;
  if (variable == "variant")
    config.variant = value;
  else if (variable == "tiles")
    config.tiles = value;
  else if (variable == "permute_x")
    options.permute_x = value == "true";
  else if (variable == "permute_y")
    options.permute_y = value == "true";
  else if (variable == "depth_gate_up")
    config.pipeline_depth_gate_up = std::stoi(value);
  else if (variable == "depth_down")
    config.pipeline_depth_down = std::stoi(value);
  else if (variable == "raster")
    config.raster_rows = std::stoi(value);
  else if (variable == "blocks")
    config.persistent_blocks = std::stoi(value);
  else if (variable == "cluster")
    config.cluster = std::stoi(value);
  else if (variable == "contract")
    options.contract = value;
  else if (variable.ends_with("_dx"))
    set_dx(options, variable, value);
  else if (variable == "order_dw")
    options.kernel_config_bwd_dW.tile_order = value;
  else if (variable == "depth_dw")
    options.kernel_config_bwd_dW.pipeline_depth = std::stoi(value);
  else if (variable == "depth_gathered_dw")
    options.kernel_config_bwd_dW.pipeline_depth_gathered = std::stoi(value);
  else
    throw UsageError(
        "expected variant, tiles, permute_x, permute_y, depth_gate_up, depth_down, raster, blocks, cluster, "
        "contract, tiles_dx, cluster_dx, raster_dx, order_dw, depth_dw or depth_gathered_dw, found " +
        variable);
}

void print(const std::string& model, const GpuBenchmark& bench) {
  std::printf("%s, %lld tokens on %s, %s: %lld experts hit, %lld to %lld rows each; %d MHz, %d W\n",
              model.c_str(), static_cast<long long>(bench.tokens), bench.device.c_str(),
              bench.variant.c_str(), static_cast<long long>(bench.experts_hit),
              static_cast<long long>(bench.fewest_rows), static_cast<long long>(bench.most_rows),
              bench.sm_clock_mhz, bench.power_watts);
  std::printf("  before: %lld words of every result equal to those of %s at this size\n",
              static_cast<long long>(bench.compared_words), bench.compared_with.c_str());
  for (const auto& t : bench.timings) {
    std::printf("  %-38s %9.1f us (%.1f .. %.1f)", t.what.c_str(), t.median_us, t.fastest_us, t.slowest_us);
    if (t.flops > 0) std::printf("  %6.1f TFLOP/s", t.tflops());
    if (t.limit_us > 0)
      std::printf("  %3.0f %% of the limit, %.1f us", 100 * t.limit_us / t.median_us, t.limit_us);
    std::printf("\n");
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 3)
      throw UsageError("usage: gpu_bench 30b|235b|next80b[-skewed] TOKENS... [variable=value...]");
    const std::string name = argv[1];
    const bool skewed = name.ends_with("-skewed");
    const auto* model = std::find_if(std::begin(kModels), std::end(kModels), [&](const Model& m) {
      return name.substr(0, name.find('-')) == m.name;
    });
    if (model == std::end(kModels)) throw UsageError("expected model 30b, 235b or next80b, found " + name);
    GpuOptions options;
    options.debug_fields = false;
    std::vector<std::int64_t> tokens;
    bool backward = false;
    for (int i = 2; i < argc; ++i) {
      const std::string argument = argv[i];
      const auto equals = argument.find('=');
      if (equals == std::string::npos)
        tokens.push_back(std::stoll(argument));
      else if (argument == "backward=true")
        backward = true;
      else
        set(options, argument.substr(0, equals), argument.substr(equals + 1));
    }
    if (tokens.empty()) throw UsageError("expected at least one number of tokens, found none");
    if (auto reason = gpu_unavailable()) {
      std::printf("SKIP: %s\n", reason->c_str());
      return 77;
    }
    const Problem problem =
        gpu::selfcheck_problem(model->config, *std::max_element(tokens.begin(), tokens.end()), 1,
                               skewed ? gpu::Load::Skewed : gpu::Load::Natural);
    for (const auto& bench : bench_gpu_fused(problem, tokens, options, backward)) print(name, bench);
    return 0;
  } catch (const UsageError& error) {
    std::fprintf(stderr, "gpu_bench: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_bench: %s\n", error.what());
    return 3;
  }
}
