// The one table that names every pipeline.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/cli/kernel_config.h"
#include "harness/cli/plugin/plugin_pipeline.h"
#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"

namespace assay::cli {

struct PipelineOptions {
  std::string contract;                  // the contract to compute under; "" = hf
  bool permute_x = true;                 // gpu_fused: gather the tokens' rows in the first product's prologue
  bool permute_y = false;                // gpu_fused: the second product writes its rows in slot order
  KernelConfigTexts kernel_config = {};  // gpu_fused
  double time_limit = kTimeLimit;        // seconds a call of a plug-in may take
  bool backward = false;                 // run the backward pass, too, where the problem has d_hidden_states
  bool dX_only = false;                  // of it: no gradients of weights; GPU pipelines, plugins
  bool dW_only = false;                  // no gradient of the layer's input; GPU pipelines, plugins
};

inline constexpr std::string_view kGpuFp64 = "gpu_fp64";
inline constexpr std::string_view kGpuFused = "gpu_fused";
inline constexpr std::string_view kGpuFusedWith = "gpu_fused#";  // and a config (kernel_config_of_name)
inline constexpr std::string_view kDump = "dump:";               // a file in the schema
inline constexpr std::string_view kPlugin = "plugin:";  // a shared library (harness/host/plugin.h), #config

/// The file that a pipeline's name names; empty for one of our own.
std::string file_of_pipeline(std::string_view name);

struct PipelineRow {
  std::string_view name;
  std::string_view sentence;
  Candidate (*run)(const Problem& problem, const PipelineOptions& options);
  TieRule ties;
};

std::span<const PipelineRow> pipelines();

/// Runs the pipeline of that name, reads `dump:FILE.h5` or runs `plugin:PATH.so`. Throws UsageError listing
/// the valid names, InputError when the pipeline cannot run here, CandidateError when it did what no
/// implementation may.
Candidate run_pipeline(std::string_view name, const Problem& problem, const PipelineOptions& options);

/// Runs twice: the second run, and the first beside it where any byte of theirs differs.
std::vector<PluginRun> run_twice(std::string_view name, const std::function<Candidate()>& run);

/// The same with every run there is to judge: of a plugin, and of a config of gpu_fused, two where two runs
/// on the same inputs differ.
std::vector<PluginRun> runs_of_pipeline(std::string_view name, const Problem& problem,
                                        const PipelineOptions& options);

/// One run alone: of a plugin in the process of its earlier runs.
Candidate run_once(std::string_view name, const Problem& problem, const PipelineOptions& options);

/// The accumulators of HuggingFace's layer on an H200: `hopper`, and the splits of K that cuBLAS was seen to
/// make.
Accumulators huggingface_accumulators(const Problem& problem, std::string_view contract);

}  // namespace assay::cli
