// assay mutate: plant every catalogued fault in the predicted arithmetic and see whether the judge names the
// right stage.
#include <algorithm>
#include <exception>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "golden/file_text.h"
#include "harness/cli/commands.h"
#include "harness/cli/environment.h"
#include "harness/cli/mutate/detection_curves.h"
#include "harness/cli/mutate/false_alarms.h"
#include "harness/cli/mutate/mutate_evidence.h"
#include "harness/cli/mutate/mutate_score.h"
#include "harness/cli/mutate/mutation.h"
#include "harness/cli/option_use.h"
#include "harness/cli/output.h"
#include "harness/cli/problems.h"
#include "harness/contract/error.h"
#include "harness/contract/precision_contract.h"
#include "harness/host/atomic_file.h"

namespace assay::cli {
namespace {

/// The one that harness/SENSITIVITY.md is written by, wherever it is written to.
constexpr const char* kDocumentCommand =
    "assay mutate --markdown harness/SENSITIVITY.md --evidence golden/recorded/detection_curves.json "
    "golden/recorded/false_alarms.json "
    "golden/recorded/mutate_contracts.json golden/recorded/mutate_sums.json "
    "golden/recorded/mutate_full_width.json";
constexpr std::string_view kFullWidth = "qwen3_30b_a3b";
constexpr std::int64_t kFullWidthTokens = 4;

struct Options {
  std::vector<std::string> faults;
  std::vector<std::string> fixtures;
  std::vector<std::string> contracts = {"hf"};
  std::vector<std::string> sums = {"recorded"};
  std::vector<std::filesystem::path> evidence;
  std::string json;
  std::string html;
  std::string markdown;
  std::string dump;
  std::string scores;
  std::vector<std::string> families;
  std::vector<std::filesystem::path> counts;
  std::int64_t correct = 0;
  std::int64_t curves = 0;
  std::uint64_t seed = 1;
  bool quick = false;
  bool full_width = false;
  bool quiet = false;
  bool verbose = false;
};

std::vector<std::string> fixtures_of(const FaultRow& fault, const Options& options) {
  if (options.full_width) return {std::string(kFullWidth)};
  if (!options.fixtures.empty()) return options.fixtures;
  std::vector<std::string> all(fault.fixtures.begin(), fault.fixtures.end());
  if (options.quick) all.resize(1);
  return all;
}

struct Planting {
  FaultRow fault;
  std::string fixture;
  std::string contract;
  SumsOf sums;
  bool same_ground(const Planting& other) const {
    return fixture == other.fixture && contract == other.contract && sums == other.sums &&
           fault.spoil == other.fault.spoil &&
           strikes_backward(fault.fault) == strikes_backward(other.fault.fault);
  }
};

std::vector<Planting> plantings(const Options& options) {
  std::vector<Planting> all;
  for (const auto& fault : faults()) {
    if (!options.faults.empty() && std::ranges::find(options.faults, fault.id) == options.faults.end())
      continue;
    // All experts' gradients of a real width are too many to compute for every fault.
    if (options.full_width &&
        (strikes_backward(fault.fault) || !reached_by_ordinary_values(fault, kFullWidthTokens)))
      continue;
    for (const auto& contract : options.contracts)
      for (const auto& sums : options.sums)
        for (const auto& fixture : fixtures_of(fault, options))
          all.push_back({fault, fixture, contract, find_sums(sums)});
  }
  return all;
}

/// Ground by ground, so that weights are held once; the faults of one in parallel, one thread each. In the
/// order of the plantings.
std::vector<Mutation> plant_all(const std::vector<Planting>& all, const Options& options) {
  std::vector<Mutation> mutations(all.size());
  std::vector<bool> planted(all.size());
  std::size_t done = 0;
  std::exception_ptr error;
  for (std::size_t first = 0; first < all.size(); ++first) {
    if (planted[first]) continue;
    const Ground ground = make_ground(all[first].fixture, all[first].contract, all[first].fault.spoil, 0,
                                      options.full_width ? kFullWidthTokens : 0,
                                      strikes_backward(all[first].fault.fault), all[first].sums);
    std::vector<std::size_t> here;
    for (std::size_t i = first; i < all.size(); ++i)
      if (all[i].same_ground(all[first])) here.push_back(i), planted[i] = true;
#pragma omp parallel for schedule(dynamic, 1)
    for (const auto i : here) {
      try {
        FaultRow fault = all[i].fault;
        // Of many experts most have no row: what strikes one of the row's problem strikes one that is used.
        if (options.full_width)
          fault.fault.expert = ground.right.fields.at(Field::selected_experts).as<std::int32_t>()[0];
        mutations[i] = plant(fault, ground, all[i].fixture);
      } catch (...) {
#pragma omp critical
        error = std::current_exception();
      }
#pragma omp critical
      progress(fmt::format("{} of {}: {} on {}", ++done, all.size(), all[i].fault.id, all[i].fixture));
    }
    if (error) std::rethrow_exception(error);
  }
  progress_done();
  return mutations;
}

ExitCode run(const Options& options, const std::string& command) {
  const auto mutations = plant_all(plantings(options), options);
  for (const auto& mutation : mutations) {
    if (!options.quiet) fmt::print("{}", line(mutation));
    if (options.verbose) fmt::print("             {}\n", mutation.declared.headline);
  }
  if (!options.quiet) fmt::print("{}", totals_text(mutations));
  if (!options.json.empty()) write_file_atomically(options.json, mutations_json(mutations, command));
  if (!options.scores.empty()) {
    const std::string problems = options.full_width
                                     ? fmt::format("{}, {} tokens", kFullWidth, kFullWidthTokens)
                                     : std::string(kProblemsOfTable);
    write_file_atomically(options.scores, scores_json(scores_by_contract(mutations, problems), command));
  }
  if (!options.html.empty())
    write_file_atomically(options.html,
                          render_sensitivity_html(sensitivity(mutations, options.evidence, command)));
  if (!options.markdown.empty())
    write_file_atomically(options.markdown, render_sensitivity_markdown(
                                                sensitivity(mutations, options.evidence, kDocumentCommand)));
  return exit_code(score(mutations));
}

ExitCode run_correct(const Options& options, const std::string& command) {
  const FalseAlarms result = judge_correct_runs(options.correct, options.seed);
  if (!options.quiet) fmt::print("{}", text(result));
  if (!options.json.empty()) write_file_atomically(options.json, json(result, command));
  return exit_code(result);
}

/// Folders stand for the JSON files in them.
std::vector<std::filesystem::path> json_files(const std::vector<std::filesystem::path>& named) {
  std::vector<std::filesystem::path> files;
  for (const auto& path : named) {
    if (!std::filesystem::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    const std::size_t before = files.size();
    for (const auto& entry : std::filesystem::directory_iterator(path))
      if (entry.path().extension() == ".json") files.push_back(entry.path());
    if (files.size() == before) throw InputError(fmt::format("{}: no JSON file in it", path.string()));
    std::sort(files.begin() + static_cast<std::ptrdiff_t>(before), files.end());
  }
  return files;
}

ExitCode run_merge(const Options& options, const std::string& command) {
  std::vector<FalseAlarms> parts;
  for (const auto& path : json_files(options.counts))
    parts.push_back(read_false_alarms(file_text(path, kMostEvidence)));
  const FalseAlarms result = merge_false_alarms(std::move(parts));
  fmt::print("{}", text(result));
  if (!options.json.empty()) write_file_atomically(options.json, json(result, command));
  return exit_code(result);
}

ExitCode run_curves(const Options& options, const std::string& command) {
  const auto curves = detection_curves(options.families, options.curves, options.seed);
  if (!options.quiet) fmt::print("{}", text(curves));
  if (!options.json.empty()) write_file_atomically(options.json, json(curves, command));
  return ExitCode::Passed;
}

ExitCode write_dump(const Options& options) {
  if (options.fixtures.size() != 1 || options.faults.size() != 1 || options.contracts.size() != 1 ||
      options.sums.size() != 1)
    throw UsageError(
        "mutate --dump FILE needs exactly one FAULT and --fixture NAME, and takes one --contract and --sums");
  const auto& fault = find_fault(options.faults.front());
  const Ground ground = make_ground(options.fixtures.front(), options.contracts.front(), fault.spoil, 0, 0,
                                    strikes_backward(fault.fault), find_sums(options.sums.front()));
  Candidate candidate = faulty_candidate(fault.fault, ground);
  candidate.name = fault.id;
  candidate.compute_capability = "9.0";
  write_golden(options.dump, ground.problem, candidate);
  return ExitCode::Passed;
}

void check_files(const Options& options) {
  std::vector<OutputFile> outputs;
  for (const auto& [option, path] :
       {std::pair("--json", &options.json), std::pair("--scores", &options.scores),
        std::pair("--html", &options.html), std::pair("--markdown", &options.markdown),
        std::pair("--dump", &options.dump)})
    if (!path->empty()) outputs.push_back({option, *path});
  std::vector<std::string> inputs = {options.counts.begin(), options.counts.end()};
  for (const auto& path : options.evidence) inputs.push_back(path.string());
  require_outputs_apart(outputs, inputs);
}

void check_reads(const CLI::App& command, const Options& options) {
  const bool merges = !options.counts.empty();
  const bool seeds = !merges && (options.curves > 0 || options.correct > 0);
  const bool plants = !merges && !seeds;
  const bool score = plants && options.dump.empty();
  constexpr std::string_view kPlanting = "planting, without --correct, --curves and --merge";
  constexpr std::string_view kScore = "the score, without --correct, --curves, --merge and --dump";
  require_read(command, {{"--curves", !merges, "a run without --merge"},
                         {"--correct", !merges && options.curves == 0, "a run without --curves and --merge"},
                         {"--seed", seeds, "--correct and --curves"},
                         {"FAULT", plants, kPlanting},
                         {"--fixture", plants, kPlanting},
                         {"--contract", plants, kPlanting},
                         {"--sums", plants, kPlanting},
                         {"--dump", plants, kPlanting},
                         {"--quick", score, kScore},
                         {"--full-width", score, kScore},
                         {"--scores", score, kScore},
                         {"--html", score, kScore},
                         {"--markdown", score, kScore},
                         {"--verbose", score, kScore},
                         {"--json", options.dump.empty(), "a run without --dump"},
                         {"--evidence", !(options.html.empty() && options.markdown.empty()),
                          "--html and --markdown"}});
}

}  // namespace

void add_mutate(CLI::App& app, Program& program) {
  auto* command = app.add_subcommand(
      "mutate", "plant every catalogued fault; print which are found, in which stage, by what");
  auto options = std::make_shared<Options>();
  command->add_option("FAULT", options->faults, "only these (assay list faults)");
  command->add_option("--fixture", options->fixtures, "on these problems, not on those of the table")
      ->type_name("NAME");
  command->add_option("--contract", options->contracts, "plant under these contracts (default: hf)")
      ->type_name("NAME");
  command
      ->add_option("--sums", options->sums,
                   "plant in candidates whose products are summed so: recorded (default), float64, pairwise, "
                   "split_k; hints then come with nothing declared")
      ->type_name("NAME");
  command->add_flag("--quick", options->quick, "one problem per fault");
  command
      ->add_flag("--full-width", options->full_width,
                 fmt::format("on {} tokens of {} instead: every fault that ordinary values reach",
                             kFullWidthTokens, kFullWidth))
      ->excludes("--fixture");
  command
      ->add_option("--scores", options->scores,
                   "write the totals by contract as JSON, to be shown as --evidence")
      ->type_name("FILE");
  command->add_option("--json", options->json, "write the score as JSON")->type_name("FILE");
  command
      ->add_option("--correct", options->correct,
                   "judge correct runs instead: N seeds in every legal order of summation and contract; an "
                   "alarm is an error")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30));
  command
      ->add_option(
          "--merge", options->counts,
          "add up instead what --correct found on different seeds: its JSON files, or folders of them")
      ->type_name("PATH");
  command
      ->add_option("--curves", options->curves,
                   "plant the scalable faults in every size instead, on N seeds each: from which size on is "
                   "each found, and by whom")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30));
  command
      ->add_option("--family", options->families,
                   "only these scalable faults: output_scale, down_zeros, output_flip, gate_up_tail")
      ->type_name("NAME")
      ->needs("--curves");
  command->add_option("--seed", options->seed, "the first seed of --correct and --curves")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 62));
  command->add_option("--html", options->html, "write who catches what as a single-file HTML page")
      ->type_name("FILE");
  command->add_option("--markdown", options->markdown, "write who catches what as a document")
      ->type_name("FILE");
  command
      ->add_option("--evidence", options->evidence,
                   "JSON of --curves, --correct and --scores, to be shown in --html and --markdown")
      ->type_name("FILE");
  command
      ->add_option("--dump", options->dump,
                   "write the faulty candidate of one FAULT on --fixture, with its problem, for verify "
                   "--golden FILE and other tools")
      ->type_name("FILE");
  command->add_flag("-q,--quiet", options->quiet, "no text on stdout");
  command->add_flag("-v,--verbose", options->verbose, "print the judge's sentence for each")
      ->excludes("--quiet");
  command->callback([=, &program] {
    program.selected = [=, &program] {
      check_reads(*command, *options);
      check_files(*options);
      for (const auto& id : options->faults) find_fault(id);
      for (const auto& contract : options->contracts) find_contract(contract);
      for (const auto& sums : options->sums) find_sums(sums);
      options->fixtures =
          options->fixtures.empty() ? options->fixtures : matching_fixtures(options->fixtures);
      for (const auto& id : options->families) find_fault_family(id);
      if (options->curves > 0) return run_curves(*options, program.command_line);
      if (!options->counts.empty()) return run_merge(*options, program.command_line);
      if (options->correct > 0) return run_correct(*options, program.command_line);
      return options->dump.empty() ? run(*options, program.command_line) : write_dump(*options);
    };
  });
}

}  // namespace assay::cli
