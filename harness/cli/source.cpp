#include "harness/cli/source.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "fixtures/faults.h"
#include "golden/golden_file.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/problems.h"
#include "harness/contract/error.h"
#include "reference_cpu/qwen3_moe.h"

namespace assay::cli {
namespace {

/// Some faults are reached by a non-finite input only.
void spoil_input(Problem& problem, const SourceOptions& options) {
  if (!options.fault.empty()) spoil(problem, find_fault(options.fault).spoil);
}

std::string quoted(const std::string& word) {
  return word.find_first_of(" ()'*?") == std::string::npos ? word : fmt::format("'{}'", word);
}

}  // namespace

void add_source_options(CLI::App& command, SourceOptions& options) {
  command
      .add_option("--golden", options.golden, "golden or dump; without --pipeline it is the candidate itself")
      ->type_name("FILE");
  command.add_option("--fixture", options.fixture, "named problem (assay list fixtures)")->type_name("NAME");
  command
      .add_option("--pipeline", options.pipeline,
                  "the candidate: a name (assay list pipelines), dump:FILE.h5 or plugin:PATH.so; default of "
                  "a fixture: predicted")
      ->type_name("P");
  command
      .add_option("--fault", options.fault, "plant this fault (assay list faults) in the predicted pipeline")
      ->type_name("ID");
  command
      .add_option("--contract", options.contract, "precision contract; default: as the candidate declares")
      ->type_name("C");
  command
      .add_option("--accumulator", options.accumulator,
                  "accumulator of all products: hopper, hopper_split(k1, k2, ...), ...")
      ->type_name("A");
  add_time_limit_option(command, options.time_limit);
}

void add_time_limit_option(CLI::App& command, double& seconds) {
  constexpr double kShortest = 1e-3;
  constexpr double kLongest = 1e6;
  command.add_option("--time-limit", seconds, "seconds that a call of a plugin may take (default 120)")
      ->type_name("SECONDS")
      ->check(CLI::Range(kShortest, kLongest));
}

std::vector<std::string> read_files(const SourceOptions& options) {
  std::vector<std::string> files;
  for (auto file : {options.golden, file_of_pipeline(options.pipeline)})
    if (!file.empty()) files.push_back(std::move(file));
  return files;
}

Candidate run_again(const SourceOptions& options, const Problem& problem, const std::string& contract) {
  if (options.fault.empty()) {
    PipelineOptions pipeline{contract};
    pipeline.time_limit = options.time_limit;
    pipeline.backward = options.backward;
    return run_pipeline(options.pipeline.empty() ? "predicted" : options.pipeline, problem, pipeline);
  }
  const auto& fault = find_fault(options.fault);
  const std::string_view under = contract.empty() ? "hf" : std::string_view(contract);
  const auto accumulators = huggingface_accumulators(problem, under);
  Candidate candidate = row(fault.fault.field).group == Group::Backward
                            ? predict_both_passes(problem, find_contract(under), accumulators, fault.fault)
                            : predict_forward(problem, find_contract(under), accumulators, fault.fault);
  candidate.name = fault.id;
  candidate.compute_capability = "9.0";
  return candidate;
}

Source load_source(const SourceOptions& options) {
  if (options.golden.empty() == options.fixture.empty())
    throw UsageError("expected either --golden FILE or --fixture NAME");
  if (!options.fault.empty() && !options.pipeline.empty() && options.pipeline != "predicted")
    throw UsageError(
        fmt::format("--fault is planted in the predicted pipeline, not in {}", options.pipeline));
  if (!options.fault.empty()) find_fault(options.fault);
  if (!options.contract.empty()) find_contract(options.contract);
  Source source;
  std::string contract = options.contract;
  source.words = options.golden.empty() ? fmt::format("--fixture {}", quoted(options.fixture))
                                        : fmt::format("--golden {}", quoted(options.golden));
  source.reruns = !options.pipeline.starts_with(kDump);
  if (options.golden.empty()) {
    source.problem = load_fixture(options.fixture);
    spoil_input(source.problem, options);
    source.candidate = run_again(options, source.problem, contract);
  } else {
    GoldenFile file = load_file(options.golden);
    if (!file.has_inputs)
      throw InputError(fmt::format(
          "{} has no inputs and weights, or names none; name it as --pipeline dump:{} beside its problem",
          options.golden, options.golden));
    if (contract.empty() && file.candidate.contract != "auto") contract = file.candidate.contract;
    source.problem = std::move(file.problem);
    spoil_input(source.problem, options);
    const bool itself = options.pipeline.empty() && options.fault.empty();
    source.reruns = source.reruns && !itself;
    source.candidate = itself ? std::move(file.candidate) : run_again(options, source.problem, contract);
  }
  if (!options.pipeline.empty()) source.words += fmt::format(" --pipeline {}", quoted(options.pipeline));
  if (!options.fault.empty()) source.words += fmt::format(" --fault {}", options.fault);
  if (!options.contract.empty()) source.words += fmt::format(" --contract {}", options.contract);
  if (!options.accumulator.empty())
    source.words += fmt::format(" --accumulator {}", quoted(options.accumulator));

  const std::string name = !options.contract.empty()             ? options.contract
                           : source.candidate.contract == "auto" ? "hf"
                                                                 : source.candidate.contract;
  source.contract = find_contract(name);
  source.contract.ties = source.candidate.ties;
  Accumulators accumulators = source.candidate.accumulators;
  if (!options.accumulator.empty()) {
    const Accumulator all = parse_accumulator(options.accumulator);
    accumulators = every_product(all, accumulators.rest_as_torch);
  }
  source.contract.product_slack = product_slack(source.candidate, accumulators);
  source.declared = accumulators;
  source.predict = declared(accumulators) || source.candidate.from_hopper();
  source.accumulators = assumed_where_unknown(accumulators);
  return source;
}

}  // namespace assay::cli
