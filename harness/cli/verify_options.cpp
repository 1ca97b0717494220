#include "harness/cli/verify_options.h"

#include <fnmatch.h>
#include <algorithm>
#include <filesystem>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "golden/sha256.h"
#include "harness/cli/kernel_config.h"
#include "harness/cli/option_use.h"
#include "harness/cli/pipeline_reads.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/plugin/plugin_process.h"
#include "harness/cli/problems.h"
#include "harness/cli/source.h"
#include "harness/cli/sweep.h"
#include "harness/contract/error.h"
#include "harness/contract/layer.h"
#include "reference_cpu/reference_run.h"

namespace assay::cli {

void add_verify_options(CLI::App& command, VerifyOptions& options, std::string& shard) {
  command.add_option("--golden", options.goldens, "golden files; without --pipeline each is judged itself")
      ->type_name("FILE...");
  command
      .add_option("--fixture", options.fixtures,
                  "named problems, * and ? match (assay list fixtures); groups: small, large")
      ->type_name("GLOB...");
  command.add_option("--exclude", options.exclude, "leave out fixtures and golden files of these names")
      ->type_name("GLOB...");
  command.add_option("--checkpoint", options.checkpoint, "a HuggingFace model folder; needs --layer")
      ->type_name("DIR");
  command.add_option("--layer", options.layer, "layer of the checkpoint")->type_name("N");
  command.add_option("--input", options.input, "file whose input_hidden_states feed the checkpoint's layer")
      ->type_name("FILE");
  command.add_option("--tokens", options.tokens, "tokens of the seeded input of a checkpoint")
      ->check(CLI::Range(0, 1 << 24));
  add_seed_option(command, options.seed);
  command
      .add_option("--pipeline", options.pipelines,
                  "what to judge: a name (assay list pipelines), dump:FILE.h5 or plugin:PATH.so")
      ->type_name("P...");
  command
      .add_option("--contract", options.contract,
                  "precision contract (assay list contracts), or auto: the one the data follow; "
                  "default: as the candidate declares")
      ->type_name("C");
  command
      .add_option("--accumulator", options.accumulator, "accumulator of all products: " + accumulator_forms())
      ->type_name("A");
  command.add_option("--stage", options.stages, "judge these stages only; or the stages of fields")
      ->type_name("S...");
  command
      .add_option("--false-alarm", options.false_alarm,
                  "chance that statistics suspect a legal run, all cases together (default 1e-6)")
      ->type_name("P");
  command
      .add_option("--permute-x", options.permute_x,
                  "gpu_fused: gather rows inside the first product (default true)")
      ->type_name("BOOL");
  command
      .add_option("--permute-y", options.permute_y,
                  "gpu_fused: the second product writes slot order (default false)")
      ->type_name("BOOL");
  command.add_flag("--backward", options.backward,
                   "pipelines run the backward pass as well, where the problem has d_hidden_states; all "
                   "experts' gradients are held, 2 bytes an element");
  command
      .add_flag("--dx-only", options.dx_only,
                "of the backward pass no gradients of weights (GPU pipelines, plugins)")
      ->needs("--backward");
  command
      .add_flag("--dw-only", options.dw_only,
                "of the backward pass no gradient of the layer's input (GPU pipelines, plugins)")
      ->needs("--backward")
      ->excludes("--dx-only");
  command
      .add_option(std::string(kOptionForward), options.kernel_config.forward,
                  "gpu_fused: key=value,... or autotune (default: chosen by size)")
      ->type_name("C");
  command
      .add_option(std::string(kOptionDx), options.kernel_config.backward_dX,
                  "the same for the gradients of the products' rows (default: as --kernel-config)")
      ->type_name("C")
      ->needs("--backward");
  command
      .add_option(std::string(kOptionDw), options.kernel_config.backward_dW,
                  "the same for the gradients of the experts' weights")
      ->type_name("C")
      ->needs("--backward");
  command
      .add_flag("--sweep", options.sweep,
                "every config of the pipelines (gpu_fused, plugin:PATH.so), one by one: a table of them, the "
                "worst first")
      ->needs("--pipeline")
      ->excludes(std::string(kOptionForward))
      ->excludes(std::string(kOptionDx))
      ->excludes(std::string(kOptionDw));
  command.add_option("--dump", options.dump, "write the judged pipeline's fields in the schema")
      ->type_name("FILE");
  command
      .add_option("--engine", options.engine,
                  "who computes the reference's products and compares fields: cpu, gpu, or auto (default): "
                  "a GPU, if there is one, the large ones")
      ->type_name("E")
      ->check(CLI::IsMember({kEngineAuto, kEngineCpu, kEngineGpu}));
  command
      .add_option("--shard", shard,
                  "judge every N-th case from the I-th on; auto: as the array job says (assay merge)")
      ->type_name("I/N");
  command.add_flag("--fail-fast", options.fail_fast, "end the run at the first case that failed");
  add_time_limit_option(command, options.time_limit);
  command.add_flag("--timings", options.timings, "print where the time went, on stderr");
  add_output_options(command, options.output);
}

JudgeOptions judge_options(const VerifyOptions& options) {
  JudgeOptions judge;
  judge.contract = options.contract;
  judge.reference = make_reference;
  judge.hash = [](std::span<const std::byte> bytes) { return sha256_hex(bytes); };
  judge.false_alarm = options.false_alarm / static_cast<double>(std::max<std::size_t>(options.cases, 1));
  if (!options.accumulator.empty()) {
    const Accumulator all = parse_accumulator(options.accumulator);
    judge.accumulators = every_product(all);
  }
  for (const auto& word : options.stages) {
    auto stage = find_stage(word);
    if (const auto field = find_field(word); field) stage = row(*field).stage;
    if (!stage) {
      std::string valid;
      for (const auto& field : kFields)
        if (find_step(field.id) != nullptr && valid.find(name(field.stage)) == std::string::npos)
          valid += fmt::format("{}{}", valid.empty() ? "" : ", ", name(field.stage));
      throw UsageError(fmt::format("unknown stage '{}'; valid: {}, or a field of one", word, valid));
    }
    judge.only.push_back(*stage);
  }
  return judge;
}

namespace {

bool excluded(const VerifyOptions& options, const std::string& name) {
  const auto file = std::filesystem::path(name).filename().string();
  return std::ranges::any_of(options.exclude, [&](const std::string& pattern) {
    return fnmatch(pattern.c_str(), name.c_str(), 0) == 0 || fnmatch(pattern.c_str(), file.c_str(), 0) == 0;
  });
}

std::vector<std::string> without_excluded(const VerifyOptions& options, std::vector<std::string> names) {
  std::erase_if(names, [&](const std::string& name) { return excluded(options, name); });
  return names;
}

}  // namespace

std::vector<std::string> goldens_of(const VerifyOptions& options) {
  return small_files_first(without_excluded(options, options.goldens));
}

std::vector<std::string> fixtures_of(const VerifyOptions& options) {
  return small_fixtures_first(without_excluded(options, matching_fixtures(options.fixtures)));
}

namespace {

/// The files and folders that are read.
std::vector<std::string> read_files(const VerifyOptions& options) {
  auto files = options.goldens;
  for (const auto& name : options.pipelines)
    if (auto file = file_of_pipeline(name); !file.empty()) files.push_back(std::move(file));
  for (const auto& path : {options.checkpoint, options.input})
    if (!path.empty()) files.push_back(path);
  return files;
}

/// The files that are written.
std::vector<OutputFile> written_files(const VerifyOptions& options) {
  auto files = output_files(options.output);
  if (!options.dump.empty()) files.push_back({"--dump", options.dump});
  return files;
}

void check(const VerifyOptions& options) {
  if (options.goldens.empty() && options.fixtures.empty() && options.checkpoint.empty())
    throw UsageError("verify needs --golden FILE, --fixture GLOB or --checkpoint DIR --layer N");
  if (!options.exclude.empty() && options.checkpoint.empty() && goldens_of(options).empty() &&
      fixtures_of(options).empty())
    throw UsageError("--exclude leaves no problem to judge");
  if (!(options.fixtures.empty() && options.checkpoint.empty()) && options.pipelines.empty())
    throw UsageError(
        "--fixture and --checkpoint need --pipeline: a name (assay list pipelines), dump:FILE.h5 or "
        "plugin:PATH.so");
  if (!options.checkpoint.empty() && options.layer < 0) throw UsageError("--checkpoint needs --layer N");
  if (options.checkpoint.empty() && (options.layer >= 0 || !options.input.empty()))
    throw UsageError("--layer and --input need --checkpoint DIR");
  if (!(options.false_alarm > 0.0 && options.false_alarm < 1.0))
    throw UsageError(fmt::format("--false-alarm must be a probability above 0 and below 1, found {}",
                                 options.false_alarm));
  for (const auto& name : options.pipelines)
    if (name.starts_with(kPlugin)) check_plugin(name.substr(kPlugin.size()), options.time_limit);
  check(options.kernel_config);  // refused before anything is judged
}

void check_reads(const CLI::App& command, const VerifyOptions& options) {
  const auto any_reads = [&](bool PipelineReads::* option) {
    return std::ranges::any_of(options.pipelines,
                               [&](const auto& name) { return options_read_by(name).*option; });
  };
  const bool seeded = !options.checkpoint.empty() && options.input.empty();
  const bool half = any_reads(&PipelineReads::half_backward);
  const bool permutes = any_reads(&PipelineReads::permutes);
  const bool configs = any_reads(&PipelineReads::kernel_config);
  constexpr std::string_view kSeeded = "--checkpoint DIR without --input FILE";
  constexpr std::string_view kHalves = "--pipeline plugin:PATH.so or one of a GPU (assay list pipelines)";
  constexpr std::string_view kFused = "--pipeline gpu_fused";
  require_read(command,
               {{"--tokens", seeded, kSeeded},
                {"--seed", seeded, kSeeded},
                {"--exclude", !(options.goldens.empty() && options.fixtures.empty()),
                 "--golden FILE and --fixture GLOB"},
                {"--dx-only", half, kHalves},
                {"--dw-only", half, kHalves},
                {"--permute-x", permutes, kFused},
                {"--permute-y", permutes, kFused},
                {kOptionForward, configs, kFused},
                {kOptionDx, configs, kFused},
                {kOptionDw, configs, kFused},
                {"--time-limit", any_reads(&PipelineReads::time_limit), "--pipeline plugin:PATH.so"}});
}

}  // namespace

std::string run_words(const VerifyOptions& options, std::string_view pipeline) {
  const PipelineReads reads = options_read_by(pipeline);
  std::string words;
  if (reads.permutes && !options.permute_x) words += " --permute-x false";
  if (reads.permutes && options.permute_y) words += " --permute-y true";
  if (reads.backward && options.backward) words += " --backward";
  if (reads.half_backward && options.dx_only) words += " --dx-only";
  if (reads.half_backward && options.dw_only) words += " --dw-only";
  const auto& configs = options.kernel_config;
  for (const auto& [option, text] : {std::pair{kOptionForward, configs.forward},
                                     {kOptionDx, configs.backward_dX},
                                     {kOptionDw, configs.backward_dW}})
    if (reads.kernel_config && !text.empty()) words += fmt::format(" {} {}", option, text);
  return words;
}

void complete(const CLI::App& command, VerifyOptions& options, const std::string& shard) {
  check(options);
  check_reads(command, options);
  require_outputs_apart(written_files(options), read_files(options));
  if (options.sweep)
    options.pipelines = with_every_config(options.pipelines, options.backward, options.time_limit);
  const auto judged = options.pipelines.size() * (goldens_of(options).size() + fixtures_of(options).size() +
                                                  !options.checkpoint.empty());
  options.cases = judged + (options.pipelines.empty() ? goldens_of(options).size() : 0);
  if (!shard.empty()) options.shard = parse_shard(shard);
  if (!options.dump.empty() && judged != 1)
    throw UsageError("--dump needs exactly one problem and one pipeline");
}

}  // namespace assay::cli
