// assay invariance: whether a token's bits depend on the run, its batch, its place or its neighbours.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include "harness/cli/commands.h"
#include "harness/cli/contract_auto.h"
#include "harness/cli/live_report.h"
#include "harness/cli/output.h"
#include "harness/cli/pipeline_reads.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/plugin/plugin_process.h"
#include "harness/cli/problems.h"
#include "harness/cli/source.h"
#include "harness/cli/token_batches.h"
#include "harness/contract/error.h"
#include "harness/contract/printable.h"
#include "harness/judge/invariance.h"
#include "harness/judge/judge.h"
#include "reference_cpu/reference_run.h"
#include "reports/invariance_report.h"

namespace assay::cli {
namespace {

struct InvarianceOptions {
  std::vector<std::string> goldens;
  std::vector<std::string> fixtures;
  std::vector<std::string> pipelines;
  std::vector<std::string> promise;
  std::vector<std::int64_t> batches{std::begin(kBatches), std::end(kBatches)};
  std::int64_t runs = 20;
  std::string contract;
  double time_limit = kTimeLimit;
  bool backward = false;
  OutputOptions output;

  std::size_t cases() const {
    return pipelines.size() * (goldens.size() + matching_fixtures(fixtures).size());
  }
};

class InvarianceRun {
 public:
  InvarianceRun(const InvarianceOptions& options, const std::string& command_line)
      : options_(options),
        streams_(streams(options.output)),
        judged_(start_report("assay invariance", command_line)),
        live_(judged_, streams_, options.cases()) {
    // Each of the changes may be judged once, beside the problem itself.
    judging_.reference = make_reference;
    judging_.false_alarm /=
        static_cast<double>(options.cases() * (token_batches(2, options.batches).size() + 2));
    for (const auto& word : options.promise)
      promised_.push_back(*std::ranges::find(kInvariants, word, [](Invariant of) { return name(of); }));
  }

  ExitCode run() {
    for (const auto& path : small_files_first(options_.goldens)) {
      const GoldenFile file = load_file(path);
      if (!file.has_inputs)
        throw InputError(
            fmt::format("{} has no inputs and weights: name a golden that has, or a --fixture", path));
      problem(file.problem, file.candidate.contract, fmt::format("--golden {}", path));
    }
    for (const auto& name : small_fixtures_first(matching_fixtures(options_.fixtures)))
      problem(load_fixture(name), "", fmt::format("--fixture {}", name));
    const ExitCode code = live_.finish();
    write_output(options_.output.json, invariance_json(cases_, judged_));
    write_output(options_.output.html, render_invariance_html(cases_, judged_));
    require_stdout();
    return code;
  }

 private:
  /// The report's streams: its JSON and page are this command's own.
  static OutputOptions streams(OutputOptions output) {
    if (output.json == kStdout || output.html == kStdout) output.quiet = true;
    output.json.clear();
    output.html.clear();
    return output;
  }

  void problem(const Problem& problem, const std::string& contract, const std::string& source) {
    for (const auto& name : options_.pipelines) {
      PipelineOptions pipeline{.contract = options_.contract.empty() ? contract : options_.contract,
                               .time_limit = options_.time_limit,
                               .backward = options_.backward};
      if (pipeline.contract == kContractAuto) pipeline.contract.clear();
      InvarianceCase one{problem.name, name, {}};
      CaseResult result;
      try {
        result = pipeline_on(problem, name, pipeline, one);
      } catch (const EndedError& error) {
        result = ended(problem, error.verdict, error.what());
      } catch (const CandidateError& error) {
        result = ended(problem, Verdict::Failed, error.what());
      } catch (const InputError& error) {
        result = ended(problem, Verdict::Unsupported, error.what());
      }
      result.candidate = name;
      result.replay = fmt::format("assay invariance {} --pipeline {}", source, name);
      if (!options_.contract.empty()) result.replay += fmt::format(" --contract {}", options_.contract);
      if (options_.backward) result.replay += " --backward";
      if (const InvarianceOptions usual; options_.batches != usual.batches)
        result.replay += fmt::format(" --batches {}", fmt::join(options_.batches, ","));
      if (const InvarianceOptions usual; options_.runs != usual.runs)
        result.replay += fmt::format(" --runs {}", options_.runs);
      if (!options_.promise.empty())
        result.replay += fmt::format(" --promise {}", fmt::join(options_.promise, ","));
      judged_.cases.push_back(result);
      // Passing cases of more than two are lines without a headline.
      const std::string told =
          options_.cases() > 2 && result.verdict == Verdict::Passed
              ? fmt::format("  {}\n",
                            printable(result.headline.substr(0, result.headline.find("; by itself"))))
              : "";
      live_.add(std::move(result), told + invariance_table(one, text_options(options_.output)));
      cases_.push_back(std::move(one));
    }
  }

  static CaseResult ended(const Problem& problem, Verdict verdict, const std::string& why) {
    CaseResult result;
    result.problem = problem.name;
    result.verdict = verdict;
    result.headline = why;
    return result;
  }

  CaseResult pipeline_on(const Problem& problem, const std::string& name, const PipelineOptions& pipeline,
                         InvarianceCase& one) {
    const Sizes sizes = problem.sizes();
    live_.doing(problem.name, name, "running", true);
    const Candidate base = run_once(name, problem, pipeline);
    CaseResult result = judged(problem, base, true);
    const auto compare = [&](InvarianceChange& change, const Problem& other, const RowNumbers& tokens) {
      live_.doing(other.name, name, "running", true);
      const Candidate run = run_once(name, other, pipeline);
      if (!add_run(change, base.fields, sizes, run.fields, other.sizes(), tokens) || change.judged) return;
      const CaseResult of_run = judged(other, run, false);
      change.judged = of_run.verdict;
      change.judged_headline = of_run.headline;
    };
    // Half of the runs before the changes, half after: what they leave behind shows, too.
    InvarianceChange again{.name = "run to run", .of = Invariant::Run};
    const auto repeat = [&](std::int64_t runs) {
      for (std::int64_t i = 0; i < runs; ++i) compare(again, problem, same_tokens(sizes.tokens));
    };
    const std::int64_t further = options_.runs - 1;
    repeat(further - further / 2);
    std::vector<InvarianceChange> changes;
    for (const TokenBatches& batches : token_batches(sizes.tokens, options_.batches)) {
      InvarianceChange change{.name = batches.name, .of = batches.of};
      for (const RowNumbers& tokens : batches.runs)
        compare(change, batch_problem(problem, tokens, batches.name), tokens);
      changes.push_back(std::move(change));
    }
    repeat(further / 2);
    changes.insert(changes.begin(), std::move(again));
    mark_invariance(result, changes, promised_);
    one.changes = std::move(changes);
    return result;
  }

  /// Causes are looked for in the problem as it is: those of thousands of tokens take minutes.
  CaseResult judged(const Problem& problem, const Candidate& candidate, bool causes) {
    live_.doing(problem.name, candidate.name, "judging");
    JudgeOptions judging = judging_;
    judging.contract = options_.contract;
    judging.causes = causes;
    const bool fitted = (judging.contract.empty() ? candidate.contract : judging.contract) == kContractAuto;
    return fitted ? judge_best_contract(problem, candidate, judging) : judge(problem, candidate, judging);
  }

  const InvarianceOptions& options_;
  OutputOptions streams_;
  Report judged_;
  LiveReport live_;
  JudgeOptions judging_;
  std::vector<Invariant> promised_;
  std::vector<InvarianceCase> cases_;
};

void check(const CLI::App& command, const InvarianceOptions& options) {
  if (options.goldens.empty() && options.fixtures.empty())
    throw UsageError("invariance needs --fixture GLOB or --golden FILE");
  require_one_on_stdout(options.output);
  require_time_limit_read(command, options.pipelines);
  auto read = options.goldens;
  for (const auto& name : options.pipelines)
    if (auto file = file_of_pipeline(name); !file.empty()) read.push_back(std::move(file));
  require_outputs_apart(output_files(options.output), read);
  for (const auto& name : options.pipelines) {
    if (name.starts_with(kDump))
      throw UsageError(fmt::format("{} is one run's results: --pipeline takes what can be run again", name));
    if (name.starts_with(kPlugin)) check_plugin(name.substr(kPlugin.size()), options.time_limit);
  }
}

}  // namespace

void add_invariance(CLI::App& app, Program& program) {
  auto* command = app.add_subcommand(
      "invariance", "whether a token's bits depend on the run, its batch, its place or its neighbours");
  auto options = std::make_shared<InvarianceOptions>();
  constexpr std::int64_t kMostTokens = 1 << 24;
  constexpr std::int64_t kMostRuns = 1 << 20;
  command
      ->add_option("--fixture", options->fixtures,
                   "named problems, * and ? match (assay list fixtures); groups: small, large")
      ->type_name("GLOB...");
  command->add_option("--golden", options->goldens, "files whose inputs and weights are taken")
      ->type_name("FILE...");
  command
      ->add_option("--pipeline", options->pipelines,
                   "what to run: a name (assay list pipelines) or plugin:PATH.so")
      ->required()
      ->type_name("P...");
  command->add_option("--contract", options->contract, "precision contract, or auto; default: as declared")
      ->type_name("C");
  command
      ->add_option("--batches", options->batches,
                   "tokens at a time (default 1,2,4,16,64,257,1024,4096); the problem's are repeated")
      ->delimiter(',')
      ->check(CLI::Range(std::int64_t{1}, kMostTokens))
      ->type_name("N,...");
  command->add_option("--runs", options->runs, "runs on the same input (default 20)")
      ->check(CLI::Range(std::int64_t{1}, kMostRuns))
      ->type_name("N");
  command
      ->add_option("--promise", options->promise,
                   "what the implementation promises, so that a difference is a failure: run,batch,order")
      ->delimiter(',')
      ->check(CLI::IsMember({"run", "batch", "order"}))
      ->type_name("WHAT,...");
  command->add_flag("--backward", options->backward, "the backward pass as well, where there is one");
  add_time_limit_option(*command, options->time_limit);
  add_output_options(*command, options->output);
  command->footer(
      "Other bits run to run are unstable (4); by batch or order they are information, unless promised (1).\n"
      "Example: assay invariance --fixture tiny --pipeline plugin:./libmine.so --promise run,batch");
  command->callback([options, command, &program] {
    program.selected = [options, command, &program] {
      check(*command, *options);
      return InvarianceRun(*options, program.command_line).run();
    };
  });
}

}  // namespace assay::cli
