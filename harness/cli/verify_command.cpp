// assay verify: judge goldens, pipelines and dumps.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include "golden/golden_file.h"
#include "harness/cli/commands.h"
#include "harness/cli/contract_auto.h"
#include "harness/cli/engine_choice.h"
#include "harness/cli/environment.h"
#include "harness/cli/live_report.h"
#include "harness/cli/output.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/place_words.h"
#include "harness/cli/plugin/plugin_process.h"
#include "harness/cli/problems.h"
#include "harness/cli/source.h"
#include "harness/cli/verify_options.h"
#include "harness/contract/error.h"
#include "harness/contract/layer.h"
#include "harness/contract/precision_contract.h"
#include "harness/host/phase_timer.h"
#include "harness/judge/judge.h"
#include "reference_cpu/reference_run.h"

#include <algorithm>
#include <new>

namespace assay::cli {
namespace {

void require_contract(const std::string& contract) {
  try {
    find_contract(contract);
  } catch (const UsageError& error) {
    throw UsageError(fmt::format("{}, {}", error.what(), kContractAuto));
  }
}

/// A case that could not be judged: its sentence, and exit code 3 unless something failed as well.
CaseResult could_not_judge(const std::string& problem, const std::string& candidate, Verdict verdict,
                           const std::string& why) {
  CaseResult result;
  result.problem = problem;
  result.candidate = candidate;
  result.verdict = verdict;
  result.headline = why;
  return result;
}

constexpr int kFinePatterns = 20;  // failing cases whose first own error is drawn finely: a report is mailed

class Verification {
 public:
  Verification(const VerifyOptions& options, const std::string& command_line)
      : options_(options),
        judge_(judge_options(options)),
        engine_(make_engine(options.engine)),
        report_(head(options, command_line), options.output, shard_cases(options)) {
    if (!options.contract.empty() && options.contract != kContractAuto) require_contract(options.contract);
  }

  ExitCode run() {
    for (const auto& path : goldens_of(options_)) golden(path);
    for (const auto& name : fixtures_of(options_)) {
      const auto mine = my_pipelines();
      if (mine.empty()) continue;
      judged_or_out_of_memory(name, [&] {
        report_.doing(name, "", "making the fixture");
        const Problem problem = [&] {
          const PhaseTimer timer("make the problem");
          return load_fixture(name);
        }();
        pipelines(problem, mine, "", fmt::format("--fixture {}", name));
      });
    }
    if (const auto mine = options_.checkpoint.empty() ? Names() : my_pipelines(); !mine.empty()) {
      const auto from = options_.input.empty()
                            ? fmt::format("--tokens {} --seed {}", options_.tokens, options_.seed)
                            : fmt::format("--input {}", options_.input);
      judged_or_out_of_memory(options_.checkpoint, [&] {
        auto made = load_checkpoint(options_.checkpoint, options_.layer, options_.input, options_.tokens,
                                    options_.seed);
        of_checkpoint_ = std::move(made.remarks);
        pipelines(made.problem, mine, "",
                  fmt::format("--checkpoint {} --layer {} {}", options_.checkpoint, options_.layer, from));
      });
    }
    if (options_.timings)
      for (const auto& [phase, seconds] : phase_seconds())
        say(fmt::format("{:>9.3f} s  {}\n", seconds, phase));
    return options_.sweep ? report_.finish_sweep() : report_.finish();
  }

 private:
  using Names = std::vector<std::string>;

  static Report head(const VerifyOptions& options, const std::string& command_line) {
    Report report = start_report("assay verify", command_line);
    if (!options.shard.whole()) report.environment.emplace_back(kShardFact, in_words(options.shard));
    return report;
  }

  static std::size_t shard_cases(const VerifyOptions& options) {
    std::size_t mine = 0;
    for (std::size_t i = 0; i < options.cases; ++i) mine += options.shard.takes(i);
    return mine;
  }

  /// Whether the next case is this shard's, and none before it ended the run.
  bool mine() {
    const bool taken = options_.shard.takes(next_++);
    taken_ += taken;
    return taken && !ended_;
  }

  /// The pipelines of the next problem that are to run here.
  Names my_pipelines() {
    begun_ = taken_;
    Names all;
    for (const auto& name : options_.pipelines)
      if (mine()) all.push_back(name);
    return all;
  }

  /// Prints and keeps a case. With --fail-fast the first that failed is the last.
  void add(CaseResult result, const std::string& below = "") {
    if (options_.fail_fast && failed(result.verdict) && !ended_) {
      ended_ = true;
      if (const auto all = shard_cases(options_); all > begun_)
        result.remarks.push_back(fmt::format(
            "--fail-fast: the run ended here; {} of its {} cases were not run", all - begun_, all));
    }
    report_.add(std::move(result), below);
  }

  void golden(const std::string& path) {
    const bool itself = options_.pipelines.empty();
    const Names names = itself ? Names() : my_pipelines();
    if (itself ? !mine() : names.empty()) return;
    if (itself) begun_ = taken_;
    report_.doing(path, "", "reading");
    try {
      GoldenFile file = load_file(path);
      if (!file.has_inputs)
        throw InputError(fmt::format(
            "{} has no inputs and weights, or names none; judge it with --golden G --pipeline dump:{}", path,
            path));
      if (itself) {
        judge_one(file.problem, {std::move(file.candidate), {}, std::move(file.unknown)},
                  fmt::format("--golden {}", path), "", &file.origins);
      } else {
        pipelines(file.problem, names, file.candidate.contract, fmt::format("--golden {}", path));
      }
    } catch (const InputError& error) {
      add(could_not_judge(path, path, Verdict::MissingGolden, error.what()));
    } catch (const std::bad_alloc&) {
      add(could_not_judge(path, path, Verdict::NotJudged, kOutOfMemory));
    }
  }

  /// Memory that runs out is that problem's verdict; the others go on.
  template <class Work>
  void judged_or_out_of_memory(const std::string& problem, Work work) {
    try {
      work();
    } catch (const std::bad_alloc&) {
      add(could_not_judge(problem, "", Verdict::NotJudged, kOutOfMemory));
    }
  }

  void pipelines(const Problem& problem, const Names& names, const std::string& contract,
                 const std::string& source) {
    for (const auto& name : names) {
      if (ended_) return;
      ++begun_;
      report_.doing(problem.name, name, "running", true);
      const PipelineOptions pipeline{
          options_.contract.empty() || options_.contract == kContractAuto ? contract : options_.contract,
          options_.permute_x,
          options_.permute_y,
          options_.kernel_config,
          options_.time_limit,
          options_.backward,
          options_.dx_only,
          options_.dw_only};
      std::vector<PluginRun> runs;
      try {
        const PhaseTimer timer(fmt::format("run {}", name));
        runs = runs_of_pipeline(name, problem, pipeline);
      } catch (const EndedError& error) {
        add(not_judged(problem, name, pipeline, error.verdict, error.what()));
        continue;
      } catch (const CandidateError& error) {
        add(not_judged(problem, name, pipeline, Verdict::Failed, error.what()));
        continue;
      } catch (const InputError& error) {
        const auto verdict = name.starts_with(kDump) ? Verdict::MissingGolden : Verdict::Unsupported;
        add(not_judged(problem, name, pipeline, verdict, error.what()));
        continue;
      } catch (const std::bad_alloc&) {
        add(not_judged(problem, name, pipeline, Verdict::NotJudged, kOutOfMemory));
        continue;
      }
      // A dump that cannot be written ends the command: it is what was asked for.
      if (!options_.dump.empty()) write_golden(options_.dump, problem, runs.front().candidate);
      try {
        for (const auto& run : runs)
          judge_one(problem, run, fmt::format("{} --pipeline {}", source, name), name, nullptr);
      } catch (const std::bad_alloc&) {
        add(not_judged(problem, name, pipeline, Verdict::NotJudged, kOutOfMemory));
      }
    }
  }

  static CaseResult not_judged(const Problem& problem, const std::string& name,
                               const PipelineOptions& pipeline, Verdict verdict, const std::string& why) {
    CaseResult result = could_not_judge(problem.name, name, verdict, why);
    result.config = problem.config;
    result.tokens = problem.sizes().tokens;
    result.seed = problem.seed;
    result.contract = pipeline.contract;
    return result;
  }

  void judge_one(const Problem& problem, const PluginRun& run, const std::string& replay,
                 const std::string& pipeline, const std::map<Field, std::string>* origins) {
    const Candidate& candidate = run.candidate;
    report_.doing(problem.name, candidate.name, "judging");
    const PhaseTimer timer("judge");
    // What the GPU computed in float64 is not judged by the GPU, unless that is asked for.
    const bool on_cpu = candidate.name == kGpuFp64 && options_.engine == kEngineAuto;
    JudgeOptions judging = judge_;
    std::optional<Engine> engine;
    if (engine_ && !on_cpu) judging.engine = &engine.emplace(counting_afresh(*engine_));
    const bool fitted = (judge_.contract.empty() ? candidate.contract : judge_.contract) == kContractAuto;
    CaseResult result =
        fitted ? judge_best_contract(problem, candidate, judging) : judge(problem, candidate, judging);
    if (of_checkpoint_) {
      result.remarks.insert(result.remarks.end(), of_checkpoint_->begin(), of_checkpoint_->end());
      if (auto told = nan_in_weights(problem, result.expert_load); !told.empty())
        result.remarks.push_back(std::move(told));
    }
    if (engine && engine->taken->products + engine->taken->comparisons > 0)
      result.remarks.push_back(
          fmt::format("{} products of the reference and {} comparisons ran on {}; sampled rows and cells of "
                      "each equal the CPU's",
                      engine->taken->products.load(), engine->taken->comparisons.load(), engine->name));
    result.replay = fmt::format("assay verify {}", replay);
    if (!options_.contract.empty()) result.replay += fmt::format(" --contract {}", options_.contract);
    if (!pipeline.empty()) result.replay += run_words(options_, pipeline);
    if (!options_.accumulator.empty())
      result.replay += fmt::format(" --accumulator '{}'", options_.accumulator);
    if (!options_.stages.empty())
      result.replay += fmt::format(" --stage {}", fmt::join(options_.stages, " "));
    if (judge_.false_alarm != JudgeOptions{}.false_alarm)
      result.replay += fmt::format(" --false-alarm {}", judge_.false_alarm);
    result.explain = explain_line(result, replay);
    result.minimize = minimize_line(result, replay);
    for (auto& field : result.fields) {
      field.origin = candidate.fields.has(field.field) ? "computed" : "";
      const bool asked =
          judge_.only.empty() || std::ranges::find(judge_.only, row(field.field).stage) != judge_.only.end();
      if (!asked && candidate.fields.has(field.field))
        field.notes.insert(field.notes.begin(),
                           fmt::format("not asked: --stage {}", fmt::join(options_.stages, " ")));
      if (origins != nullptr && origins->contains(field.field)) field.origin = origins->at(field.field);
    }
    tell_unknown(result, problem, candidate, run.unknown);
    mark_unstable(result, run.unstable);
    const std::string explain =
        result.explain.empty() ? "" : fmt::format("  explain: {}\n\n", result.explain);
    failing_ += failed(result.verdict);
    judge_.fine_patterns = failing_ < kFinePatterns;
    add(std::move(result), explain);
  }

  /// The case as explain and minimize take it: a contract with a name, no checkpoint, and no other order of
  /// rows than the pipeline's own. Empty where they do not.
  std::string source_words(const CaseResult& result, std::string source) const {
    if (source.find("--checkpoint") != std::string::npos || !options_.permute_x || options_.permute_y)
      return "";
    if (std::ranges::find(kContracts, result.contract, &PrecisionContract::name) == kContracts.end())
      return "";
    if (!options_.contract.empty()) source += fmt::format(" --contract {}", result.contract);
    if (!options_.accumulator.empty()) source += fmt::format(" --accumulator '{}'", options_.accumulator);
    return source;
  }

  /// The worst element of a case that did not pass.
  std::string explain_line(const CaseResult& result, const std::string& source) const {
    const std::string words = source_words(result, source);
    return words.empty() ? "" : explain_words(result, words);
  }

  /// A part of a case that fails; what a pipeline runs backward is not run again for a part.
  std::string minimize_line(const CaseResult& result, const std::string& source) const {
    if (!failed(result.verdict) || (options_.backward && result.first_own_error &&
                                    descends_from(*result.first_own_error, Field::d_hidden_states)))
      return "";
    const std::string words = source_words(result, source);
    return words.empty() ? "" : fmt::format("assay minimize {} -o small.h5", words);
  }

  const VerifyOptions& options_;
  JudgeOptions judge_;
  std::optional<Engine> engine_;
  int failing_ = 0;  // cases so far
  LiveReport report_;
  // cases met, this shard's of them, and begun
  std::size_t next_ = 0;
  std::size_t taken_ = 0;
  std::size_t begun_ = 0;
  bool ended_ = false;                                     // by --fail-fast
  std::optional<std::vector<std::string>> of_checkpoint_;  // what is to be told of it, once it is judged
};

}  // namespace

void add_verify(CLI::App& app, Program& program) {
  auto* command = app.add_subcommand("verify", "judge goldens, pipelines and dumps, field by field");
  auto options = std::make_shared<VerifyOptions>();
  auto shard = std::make_shared<std::string>();
  add_verify_options(*command, *options, *shard);
  command->callback([options, shard, command, &program] {
    program.selected = [options, shard, command, &program] {
      complete(*command, *options, *shard);
      return Verification(*options, program.command_line).run();
    };
  });
}

}  // namespace assay::cli
