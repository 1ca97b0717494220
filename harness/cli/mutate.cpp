// assay mutate: plant every catalogued fault in the predicted arithmetic and see whether the judge names the right stage.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "fixtures/faults.h"
#include "harness/cli/commands.h"
#include "harness/cli/environment.h"
#include "harness/cli/mutation.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/problems.h"
#include "harness/contract.h"
#include "harness/error.h"
#include "harness/judge.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

namespace assay::cli {

namespace {

Candidate faulty_candidate(const FaultRow& fault, const Problem& problem, std::string_view contract) {
  Candidate candidate = predict_forward(problem, find_contract(contract), huggingface_accumulators(problem, contract), fault.fault);
  candidate.name = fault.id;
  candidate.compute_capability = "9.0";
  return candidate;
}

}  // namespace

Mutation plant(const FaultRow& fault, const Problem& problem, std::string_view contract) {
  const Candidate candidate = faulty_candidate(fault, problem, contract);
  JudgeOptions options;
  options.reference = make_reference;
  Mutation mutation;
  mutation.result = judge(problem, candidate, options);
  mutation.killed = mutation.result.verdict > Verdict::Passed;
  mutation.localised = mutation.result.first_own_error == fault.shows_in;
  for (const auto& field : mutation.result.fields) {
    if (field.field >= fault.shows_in) break;
    mutation.earlier_red = mutation.earlier_red || field.verdict > Verdict::Passed;
  }
  return mutation;
}

namespace {

ExitCode run(const std::vector<std::string>& patterns, bool verbose) {
  int planted = 0, killed = 0, localised = 0;
  for (const auto& fault : faults()) {
    if (!patterns.empty() && std::ranges::find(patterns, fault.id) == patterns.end()) continue;
    for (const auto fixture : fault.fixtures) {
      progress(fmt::format("{} on {}", fault.id, fixture));
      const auto mutation = plant(fault, load_fixture(fixture), "hf");
      ++planted;
      killed += mutation.killed;
      localised += mutation.localised && !mutation.earlier_red;
      const char* outcome = !mutation.killed ? "SURVIVED" : mutation.localised && !mutation.earlier_red ? "killed" : "WRONG STAGE";
      progress_done();
      fmt::print("{:<12} {:<26} on {:<14} {}\n", outcome, fault.id, fixture, name(mutation.result.verdict));
      if (verbose) fmt::print("             {}\n", mutation.result.headline);
    }
  }
  fmt::print("{} faults planted, {} killed, {} in the right stage\n", planted, killed, localised);
  if (planted == 0) return ExitCode::NothingCompared;
  return killed == planted && localised == planted ? ExitCode::Passed : ExitCode::Failed;
}

}  // namespace

void add_mutate(CLI::App& app, Program& program) {
  auto* command = app.add_subcommand("mutate", "plant every catalogued fault; print which are found, and in the right stage");
  auto ids = std::make_shared<std::vector<std::string>>();
  auto verbose = std::make_shared<bool>(false);
  auto fixture = std::make_shared<std::string>();
  auto dump = std::make_shared<std::string>();
  command->add_option("FAULT", *ids, "only these (assay list faults)");
  command->add_flag("-v,--verbose", *verbose, "print the judge's sentence for each");
  command->add_option("--dump", *dump, "write the faulty candidate of one FAULT on --fixture, to try other tools on")->type_name("FILE");
  command->add_option("--fixture", *fixture, "the problem of --dump")->type_name("NAME");
  command->callback([=, &program] {
    program.selected = [=] {
      for (const auto& id : *ids) find_fault(id);
      if (dump->empty() && fixture->empty()) return run(*ids, *verbose);
      if (dump->empty() || fixture->empty() || ids->size() != 1) throw UsageError("mutate --dump FILE needs exactly one FAULT and --fixture NAME");
      const Problem problem = load_fixture(*fixture);
      write_golden(*dump, problem, faulty_candidate(find_fault(ids->front()), problem, "hf"));
      return ExitCode::Passed;
    };
  });
}

}  // namespace assay::cli
