// assay golden: make, check and list golden files.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <new>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "fixtures/fixtures.h"
#include "golden/golden_file.h"
#include "golden/sha256.h"
#include "harness/cli/commands.h"
#include "harness/cli/environment.h"
#include "harness/cli/exporter.h"
#include "harness/cli/held_gradients.h"
#include "harness/cli/live_report.h"
#include "harness/cli/option_use.h"
#include "harness/cli/oracle_check.h"
#include "harness/cli/output.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/problems.h"
#include "harness/contract/counted_words.h"
#include "harness/contract/error.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/printable.h"
#include "harness/judge/judge.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

namespace assay::cli {
namespace {

struct MakeOptions {
  std::vector<std::string> fixtures;
  std::string implementation = "both";
  std::string out = ".";
  std::string checkpoint;
  std::string prompt;
  std::string input;
  std::int64_t layer = -1;
  std::int64_t tokens = 16;
  std::uint64_t seed = 1;
  bool predicted = false;
};

struct Implementation {
  const char* name;
  const char* contract;
};
constexpr Implementation kImplementations[] = {{"grouped_mm", "hf"}, {"eager", "hf_eager"}};

/// The golden that an H200 run of HuggingFace would give.
void make_predicted(const Problem& problem, const Implementation& implementation,
                    const MakeOptions& options) {
  const auto accumulators = huggingface_accumulators(problem, implementation.contract);
  std::vector<Undetermined> undetermined;
  progress(fmt::format("{}: predicting {}", problem.name, implementation.name));
  const auto& contract = find_contract(implementation.contract);
  const bool backward = problem.output_gradient.shape() == problem.input.shape();
  Candidate candidate = backward ? predict_both_passes(problem, contract, accumulators, {}, undetermined)
                                 : predict_forward(problem, contract, accumulators, {}, undetermined);
  hold_large_gradients(problem, candidate);
  candidate.kind = "predicted";
  candidate.producer = fmt::format("huggingface {}", implementation.name);
  candidate.device = "predicted for NVIDIA H200";
  candidate.provenance = {{"assay", version()}, {"experts_implementation", implementation.name}};
  std::string open;
  for (const auto& [field, elements] : undetermined)
    open += fmt::format("{}{}: {}", open.empty() ? "" : ", ", name(field), elements);
  candidate.provenance["undetermined"] = open.empty() ? "none" : open;
  std::string stem = std::filesystem::path(problem.name).filename().string();
  std::ranges::replace(stem, ' ', '_');  // "folder layer 3" of a checkpoint
  const auto path =
      std::filesystem::path(options.out) / fmt::format("{}.{}.predicted.h5", stem, implementation.name);
  write_golden(path, problem, candidate);
  progress_done();
  fmt::print("{}: predicted; undetermined elements: {}\n", path.string(),
             candidate.provenance["undetermined"]);
}

ExitCode make(const CLI::App& command, const MakeOptions& options) {
  if (options.fixtures.empty() == options.checkpoint.empty())
    throw UsageError("golden make needs --fixture GLOB or --checkpoint DIR --layer N");
  if (!options.checkpoint.empty() && options.layer < 0) throw UsageError("--checkpoint needs --layer N");
  if (options.checkpoint.empty() && (options.layer >= 0 || !options.prompt.empty() || !options.input.empty()))
    throw UsageError("--layer, --prompt and --input need --checkpoint DIR");
  if (options.predicted && !options.prompt.empty())
    throw UsageError("--prompt is for the exporter: leave out --predicted, or give --input FILE");
  if (!options.predicted && !options.input.empty())
    throw UsageError("--input needs --predicted; the exporter takes --prompt FILE");
  const bool seeded = !options.checkpoint.empty() && options.predicted && options.input.empty();
  constexpr std::string_view kSeeded = "--predicted --checkpoint DIR without --input FILE";
  require_read(command, {{"--tokens", seeded, kSeeded}, {"--seed", seeded, kSeeded}});
  const auto names = matching_fixtures(options.fixtures);
  std::error_code refused;
  std::filesystem::create_directories(options.out, refused);
  if (refused)
    throw InputError(fmt::format("expected to create the folder {}, found that it cannot be: {}", options.out,
                                 refused.message()));
  if (!options.predicted)
    return run_exporter(
        {names, options.implementation, options.out, options.checkpoint, options.layer, options.prompt});
  for (const auto& implementation : kImplementations) {
    if (options.implementation != "both" && options.implementation != implementation.name) continue;
    for (const auto& name : names) make_predicted(load_fixture(name), implementation, options);
    if (!options.checkpoint.empty())
      make_predicted(
          load_checkpoint(options.checkpoint, options.layer, options.input, options.tokens, options.seed)
              .problem,
          implementation, options);
  }
  return ExitCode::Passed;
}

/// Hashes, provenance, the intervals, and the float64 oracle where the file has one.
ExitCode check(const std::vector<std::string>& paths, const OutputOptions& output,
               const std::string& command_line) {
  LiveReport report(start_report("assay golden check", command_line), output, paths.size());
  require_outputs_apart(output_files(output), paths);
  for (const auto& path : paths) {
    report.doing(path, "", "checking");
    CaseResult result;
    try {
      const GoldenFile file = load_file(path);
      if (!file.has_inputs) throw InputError(fmt::format("{} has no inputs and weights", path));
      JudgeOptions options;
      options.reference = make_reference;
      options.hash = [](std::span<const std::byte> bytes) { return sha256_hex(bytes); };
      result = judge(file.problem, file.candidate, options);
      tell_unknown(result, file.problem, file.candidate, file.unknown);
      for (auto& field : result.fields)
        if (file.origins.contains(field.field)) field.origin = file.origins.at(field.field);
      for (const auto& key : {"torch", "transformers"})
        if (file.candidate.kind == "golden" && !file.candidate.provenance.contains(key))
          result.remarks.push_back(fmt::format("provenance does not say which {} made it", key));
      if (auto oracle = check_oracle(file.problem, file.candidate)) {
        oracle->replay = fmt::format("assay golden check {}", path);
        report.add(std::move(*oracle));
      } else {
        result.remarks.push_back("no float64 oracle in this file");
      }
    } catch (const InputError& error) {
      result.problem = result.candidate = path;
      result.verdict = Verdict::MissingGolden;
      result.headline = error.what();
    } catch (const std::bad_alloc&) {
      result.problem = result.candidate = path;
      result.verdict = Verdict::NotJudged;
      result.headline = kOutOfMemory;
    }
    result.replay = fmt::format("assay golden check {}", path);
    report.add(std::move(result));
  }
  return report.finish();
}

ExitCode list(const std::string& directory) {
  std::vector<std::filesystem::path> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error))
    if (entry.path().extension() == ".h5") paths.push_back(entry.path());
  if (error) throw InputError(fmt::format("{}: {}", directory, error.message()));
  std::ranges::sort(paths);
  bool broken = false;
  for (const auto& path : paths) {
    try {
      const GoldenFile file = load_file(path);
      fmt::print("{:<52} {:<10} {:<24} {:<11} {:<12} {}\n", printable(path.string()), file.candidate.kind,
                 file.candidate.producer, file.candidate.contract, file.candidate.device,
                 counted(file.problem.sizes().tokens, "token"));
    } catch (const InputError& problem) {
      broken = true;
      fmt::print("{:<52} {}\n", printable(path.string()), problem.what());
    }
  }
  if (broken) return ExitCode::CouldNotJudge;
  if (paths.empty()) say(fmt::format("assay: {} has no file .h5\n", printable(directory)));
  return paths.empty() ? ExitCode::NothingCompared : ExitCode::Passed;
}

}  // namespace

void add_golden(CLI::App& app, Program& program) {
  auto* command = app.add_subcommand("golden", "make, check and list golden files");
  command->require_subcommand(1);

  auto options = std::make_shared<MakeOptions>();
  auto* maker = command->add_subcommand(
      "make", "run HuggingFace's module and write goldens; with --predicted, without Python and GPU");
  maker->add_option("--fixture", options->fixtures, "named problems, * and ? match; groups: small, large")
      ->type_name("GLOB...");
  maker->add_option("--implementation", options->implementation, "grouped_mm, eager or both")
      ->check(CLI::IsMember({"grouped_mm", "eager", "both"}));
  maker->add_option("--out", options->out, "folder for the files")->type_name("DIR");
  maker->add_flag("--predicted", options->predicted,
                  "compute on the CPU what an H200 run would give, bit for bit");
  maker->add_option("--checkpoint", options->checkpoint, "a HuggingFace model folder; needs --layer")
      ->type_name("DIR");
  maker->add_option("--layer", options->layer, "layer of the checkpoint")->type_name("N");
  maker->add_option("--prompt", options->prompt, "text whose hidden states are the layer's input (exporter)")
      ->type_name("FILE");
  maker
      ->add_option("--input", options->input,
                   "file whose input_hidden_states are the layer's input (--predicted)")
      ->type_name("FILE");
  maker->add_option("--tokens", options->tokens, "tokens of a seeded input (--predicted, without --input)")
      ->check(CLI::Range(0, 1 << 24));
  add_seed_option(*maker, options->seed);
  maker->callback(
      [options, maker, &program] { program.selected = [options, maker] { return make(*maker, *options); }; });

  struct CheckOptions {
    std::vector<std::string> paths;
    OutputOptions output;
  };
  auto checked = std::make_shared<CheckOptions>();
  auto* checker =
      command->add_subcommand("check", "re-verify hashes, provenance, and the golden against float64");
  checker->add_option("FILE", checked->paths, "golden files")->required()->type_name("FILE...");
  add_output_options(*checker, checked->output);
  checker->callback([checked, &program] {
    program.selected = [checked, &program] {
      return check(checked->paths, checked->output, program.command_line);
    };
  });

  auto directory = std::make_shared<std::string>("golden/data");
  auto* lister = command->add_subcommand("list", "the goldens of a folder");
  lister->add_option("DIR", *directory, "folder")->capture_default_str();
  lister->callback([directory, &program] { program.selected = [directory] { return list(*directory); }; });
}

}  // namespace assay::cli
