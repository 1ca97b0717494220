#include "harness/cli/pipelines.h"

#include <algorithm>

#include <fmt/format.h>

#include "gpu/pipeline.h"
#include "harness/cli/engine_choice.h"
#include "harness/cli/kernel_config.h"
#include "harness/cli/other_problem.h"
#include "harness/cli/plugin/plugin_process.h"
#include "harness/cli/problems.h"
#include "harness/contract/error.h"
#include "harness/contract/precision_contract.h"
#include "reference_cpu/eigen/plain_fields.h"
#include "reference_cpu/product/split_search.h"
#include "reference_cpu/qwen3_moe.h"

namespace assay::cli {
namespace {

std::string_view contract_or_hf(const PipelineOptions& options) {
  return options.contract.empty() ? "hf" : std::string_view(options.contract);
}

Candidate run_reference(const Problem& problem, const PipelineOptions& options) {
  return plain::run_plain_layer(problem, find_contract(contract_or_hf(options)));
}

Candidate run_predicted(const Problem& problem, const PipelineOptions& options) {
  const auto& contract = find_contract(contract_or_hf(options));
  const auto accumulators = huggingface_accumulators(problem, contract.name);
  return options.backward ? predict_both_passes(problem, contract, accumulators)
                          : predict_forward(problem, contract, accumulators);
}

GpuOptions gpu_options(const PipelineOptions& options) {
  GpuOptions gpu;
  gpu.contract = contract_or_hf(options);
  gpu.permute_x = options.permute_x;
  gpu.permute_y = options.permute_y;
  gpu.dX_only = options.dX_only;
  gpu.dW_only = options.dW_only;
  return gpu;
}

Candidate run_cublas(const Problem& problem, const PipelineOptions& options) {
  return run_gpu_cublas(problem, gpu_options(options));
}
Candidate run_cublas_grouped(const Problem& problem, const PipelineOptions& options) {
  return run_gpu_cublas_grouped(problem, gpu_options(options));
}

Candidate run_fused(const Problem& problem, const PipelineOptions& options) {
  GpuOptions gpu = gpu_options(options);
  set_kernel_configs(gpu, options.kernel_config, problem);
  return run_gpu_fused(problem, gpu);
}

PluginOptions plugin_options(const PipelineOptions& options) {
  return {options.time_limit, options.backward, options.dX_only, options.dW_only};
}

/// Pipelines run the backward pass where there is a gradient of the output.
Problem forward_only(Problem problem) {
  problem.output_gradient = {};
  return problem;
}

/// The reference's own stages, with every product on the GPU and checked there on sampled rows.
Candidate run_fp64(const Problem& problem, const PipelineOptions& options) {
  const Engine engine = *make_engine(kEngineGpu);
  Candidate candidate = forward(problem, find_contract(contract_or_hf(options)), &engine);
  // gpu_fp64 is a forward pass.
  const auto expected = std::ranges::count(kProducts, Group::Forward,
                                           [](const ProductRow& product) { return row(product.made).group; });
  if (problem.sizes().tokens > 0 && engine.taken->products != expected)
    throw InputError(fmt::format(
        "expected the GPU to compute the {} products of contract {}, found that it has the arithmetic of {}",
        expected, contract_or_hf(options), engine.taken->products.load()));
  candidate.device = engine.name;
  candidate.producer = "gpu_fp64";
  return candidate;
}

/// The file behind `dump:`. Throws InputError where it was computed on another problem: no stage is to blame
/// for that.
GoldenFile dumped(std::string_view name, const Problem& problem) {
  const std::string path(name.substr(kDump.size()));
  GoldenFile file = load_file(path);
  if (const auto difference = difference_of_problem(problem, file); !difference.empty())
    throw InputError(
        fmt::format("{} was computed on another problem than {}: {}", path, problem.name, difference));
  file.candidate.name = name;
  return file;
}

constexpr PipelineRow kPipelines[] = {
    {"reference_cpu", "the layer in plain Eigen, float64, rounded where the contract says: the root of trust",
     run_reference, TieRule::LowestIndex},
    {"predicted", "the bits an H200 will give, computed on the CPU", run_predicted, TieRule::Any},
    {"gpu_cublas", "one stage at a time, products by cuBLAS", run_cublas, TieRule::LowestIndex},
    {"gpu_cublas_grouped", "the same with one grouped cuBLAS call for all experts of a product",
     run_cublas_grouped, TieRule::LowestIndex},
    {kGpuFused, "hand-written CUDA kernels", run_fused, TieRule::LowestIndex},
    {kGpuFp64, "the reference with its products on the GPU, in float64; judged by the CPU", run_fp64,
     TieRule::LowestIndex},
};

}  // namespace

std::string file_of_pipeline(std::string_view name) {
  if (name.starts_with(kDump)) return std::string(name.substr(kDump.size()));
  return name.starts_with(kPlugin) ? PluginName(std::string(name.substr(kPlugin.size()))).path : "";
}

std::span<const PipelineRow> pipelines() { return kPipelines; }

std::vector<PluginRun> run_twice(std::string_view name, const std::function<Candidate()>& run) {
  Candidate first = run();
  Candidate second = run();
  std::vector<Field> fields;
  for (const FieldRow& field : kFields)
    if (first.fields.has(field.id)) fields.push_back(field.id);
  const auto unstable = differences(fields, first.fields, second.fields);
  if (unstable.empty()) {
    second.remarks.push_back("ran on the problem twice, each time in poisoned memory: the same bytes");
    return {{std::move(second), {}, {}}};
  }
  std::vector<PluginRun> runs = {{std::move(second), unstable, {}, "second run"},
                                 {std::move(first), unstable, {}, "first run"}};
  for (auto& one : runs) {
    one.candidate.name = fmt::format("{}, {}", name, one.which);
    one.candidate.remarks.push_back(fmt::format("{}; this is the {}, the other is judged beside it",
                                                unstable_in_words(unstable), one.which));
  }
  return runs;
}

std::vector<PluginRun> runs_of_pipeline(std::string_view name, const Problem& problem,
                                        const PipelineOptions& options) {
  if (name.starts_with(kDump)) {
    auto file = dumped(name, problem);
    return {{std::move(file.candidate), {}, std::move(file.unknown)}};
  }
  if (name.starts_with(kGpuFusedWith))
    return run_twice(name, [&] { return run_pipeline(name, problem, options); });
  if (!name.starts_with(kPlugin)) return {{run_pipeline(name, problem, options), {}, {}}};
  auto runs = run_plugin(std::string(name.substr(kPlugin.size())), problem, plugin_options(options));
  for (auto& run : runs)
    run.candidate.name = run.which.empty() ? std::string(name) : fmt::format("{}, {}", name, run.which);
  return runs;
}

Candidate run_once(std::string_view name, const Problem& problem, const PipelineOptions& options) {
  if (!name.starts_with(kPlugin)) return run_pipeline(name, problem, options);
  Candidate candidate =
      run_plugin_once(std::string(name.substr(kPlugin.size())), problem, plugin_options(options));
  candidate.name = name;
  return candidate;
}

Candidate run_pipeline(std::string_view name, const Problem& problem, const PipelineOptions& options) {
  if (name.starts_with(kPlugin)) return std::move(runs_of_pipeline(name, problem, options).front().candidate);
  if (name.starts_with(kDump)) return std::move(dumped(name, problem).candidate);
  if (name.starts_with(kGpuFusedWith)) {
    PipelineOptions with = options;
    with.kernel_config = kernel_config_of_name(name.substr(kGpuFusedWith.size()));
    Candidate candidate = run_pipeline(kGpuFused, problem, with);
    candidate.name = name;
    return candidate;
  }
  std::string valid;
  for (const auto& row : kPipelines) {
    if (row.name != name) {
      valid += fmt::format("{}{}", valid.empty() ? "" : ", ", row.name);
      continue;
    }
    Candidate candidate = row.run(options.backward ? problem : forward_only(problem), options);
    candidate.ties = row.ties;
    candidate.name = name;
    return candidate;
  }
  const std::string file = name.ends_with(".h5") ? fmt::format("; a file is named dump:{}", name) : "";
  throw UsageError(
      fmt::format("unknown pipeline '{}'{}; valid: {}, dump:FILE.h5, plugin:PATH.so", name, file, valid));
}

Accumulators huggingface_accumulators(const Problem& problem, std::string_view contract) {
  const bool per_expert_cublas = contract == "hf_eager";
  Accumulators accumulators;
  for (const ProductRow& product : kProducts)
    accumulators[product.id] =
        measured_split(product.id, problem.config, problem.sizes().tokens, per_expert_cublas);
  accumulators.rest_as_torch = true;
  return accumulators;
}

}  // namespace assay::cli
