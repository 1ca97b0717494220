// assay regress: what changed between two runs, in sentences.
#include <filesystem>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "golden/held_tensor.h"
#include "golden/sha256.h"
#include "harness/cli/approval_file.h"
#include "harness/cli/commands.h"
#include "harness/cli/environment.h"
#include "harness/cli/other_problem.h"
#include "harness/cli/output.h"
#include "harness/cli/problems.h"
#include "harness/cli/saved_report.h"
#include "harness/contract/error.h"
#include "harness/contract/printable.h"
#include "harness/host/atomic_file.h"
#include "harness/host/json_text.h"
#include "harness/judge/judge.h"
#include "harness/judge/regress.h"
#include "reference_cpu/reference_run.h"
#include "reports/markdown.h"
#include "reports/regress_report.h"

namespace assay::cli {
namespace {

/// One side: a saved report, or a dump that is judged now.
struct Side {
  std::optional<Report> report;
  std::optional<GoldenFile> file;
};

void judge_side(Side& side, const Problem& problem) {
  side.report = start_report("assay regress", "");
  JudgeOptions options;
  options.reference = make_reference;
  options.hash = [](std::span<const std::byte> bytes) { return sha256_hex(bytes); };
  side.report->cases.push_back(judge(problem, side.file->candidate, options));
  tell_unknown(side.report->cases.back(), problem, side.file->candidate, side.file->unknown);
}

/// What only one of the two holds by hashes is held by both when it is compared.
void hold_alike(Candidate& stored, const Candidate& other) {
  for (const HeldField& held : other.held) {
    const bool same_kind = stored.fields.has(held.field) &&
                           stored.fields.at(held.field).dtype() == held.dtype &&
                           stored.fields.at(held.field).shape() == held.shape;
    if (!same_kind) continue;
    stored.held.push_back(hold(held.field, stored.fields.at(held.field), held.stored));
    stored.fields.erase(held.field);
  }
}

/// Two dumps of different problems say nothing of each other.
void require_one_problem(const GoldenFile& before, const GoldenFile& now) {
  if (const auto difference = difference_of_problem(before.problem, now); !difference.empty())
    throw InputError(
        fmt::format("the two dumps are of different problems and cannot be compared; {} was computed with {}",
                    now.candidate.name, difference));
}

std::string to_json(const std::vector<Finding>& findings) {
  auto array = nlohmann::ordered_json::array();
  for (const auto& finding : findings) array.push_back(finding_json(finding));
  return json_text({{"schema", "assay-regress"},
                    {"version", 1},
                    {"severity", name(worst(findings))},
                    {"findings", array}},
                   2) +
         "\n";
}

struct RegressOptions {
  std::string baseline;
  std::string candidate;
  std::string json;
  std::string markdown;
  std::string html;
  std::string approvals;
  bool approve = false;
  std::string by;
  std::string why;
};

/// Both sides judged. Throws InputError where they are of different problems.
std::pair<Side, Side> sides_of(const RegressOptions& options) {
  Side before;
  Side after;
  if (options.baseline.ends_with(".json")) {
    before.report = read_report(options.baseline);
    after.report = read_report(options.candidate);
    return {std::move(before), std::move(after)};
  }
  before.file = load_file(options.baseline);
  after.file = load_file(options.candidate);
  require_one_problem(*before.file, *after.file);
  const Problem& problem = before.file->has_inputs ? before.file->problem : after.file->problem;
  if (!before.file->has_inputs && !after.file->has_inputs)
    throw InputError(
        fmt::format("{} has no inputs and weights: at least one of the two dumps must carry them, or name "
                    "their generators",
                    options.candidate));
  judge_side(before, problem);
  judge_side(after, problem);
  // Two names of one problem: the comparison pairs cases by problem and candidate.
  after.report->cases.front().problem = before.report->cases.front().problem;
  after.report->cases.front().candidate = before.report->cases.front().candidate;
  hold_alike(before.file->candidate, after.file->candidate);
  hold_alike(after.file->candidate, before.file->candidate);
  return {std::move(before), std::move(after)};
}

void require_whole_call(const RegressOptions& options) {
  if (options.baseline.ends_with(".json") != options.candidate.ends_with(".json"))
    throw UsageError("regress compares two reports (.json) or two dumps (.h5), not one of each");
  if (options.approve && options.why.find_first_not_of(" \t\n") == std::string::npos)
    throw UsageError("--approve needs --why REASON: those who come later read it");
  if (!options.approve && (!options.why.empty() || !options.by.empty()))
    throw UsageError("--why and --by belong to --approve");
  std::vector<OutputFile> outputs;
  for (const auto& [option, path] :
       {std::pair("--json", &options.json), std::pair("--markdown", &options.markdown),
        std::pair("--html", &options.html)})
    if (!path->empty() && *path != kStdout) outputs.push_back({option, *path});
  if (options.approve) outputs.push_back({"--approve in", options.approvals});
  std::vector<std::string> inputs = {options.baseline, options.candidate};
  if (!options.approve) inputs.push_back(options.approvals);
  require_outputs_apart(outputs, inputs);
}

/// Records what is open in `findings`, which become approved.
void approve(const RegressOptions& options, std::vector<Finding>& findings,
             std::vector<ApprovedFinding>& approved) {
  Decision decision{{options.by.empty() ? present_user() : options.by, options.why, utc_now()},
                    present_revision(),
                    version(),
                    options.baseline,
                    options.candidate,
                    to_approve(findings)};
  if (decision.approval.by.empty())
    throw UsageError("--approve needs --by NAME: neither git nor $USER says who");
  if (decision.changes.empty()) return;
  add_approval(options.approvals, decision);
  for (Finding change : decision.changes) {
    change.approval = decision.approval;
    approved.push_back(std::move(change));
  }
  findings = with_approvals(std::move(findings), approved);
}

ExitCode run(RegressOptions options, const std::string& command_line) {
  const bool named = !options.approvals.empty();
  if (!named) options.approvals = approvals_beside(options.baseline);
  require_whole_call(options);
  if (named && !options.approve && !std::filesystem::exists(options.approvals))
    throw InputError(fmt::format("cannot read {}: it does not exist", options.approvals));
  std::vector<ApprovedFinding> approved = read_approvals(options.approvals);
  const auto [before, after] = sides_of(options);
  const auto results = [](const Side& side) { return side.file ? &side.file->candidate : nullptr; };
  const auto fields = [](const Side& side) { return side.file ? &side.file->candidate.fields : nullptr; };
  auto findings =
      with_approvals(regress(&*before.report, &*after.report, results(before), results(after)), approved);
  if (options.approve) approve(options, findings, approved);
  if (options.json == kStdout)
    fmt::print("{}", to_json(findings));
  else
    for (const auto& finding : findings)
      fmt::print("{:<10}  {}\n", name(finding.severity), printable(finding.sentence));
  if (!options.json.empty() && options.json != kStdout)
    write_file_atomically(options.json, to_json(findings));
  if (!options.markdown.empty()) write_file_atomically(options.markdown, render_markdown(findings));
  if (!options.html.empty())
    write_file_atomically(options.html,
                          render_regress_html(findings, {options.baseline, &*before.report, fields(before)},
                                              {options.candidate, &*after.report, fields(after)},
                                              start_report("assay regress", command_line)));
  require_stdout();
  return exit_code(worst(findings));
}

}  // namespace

void add_regress(CLI::App& app, Program& program) {
  auto* command =
      app.add_subcommand("regress", "compare two reports or two dumps: verdicts, error ratios, bits, time");
  auto options = std::make_shared<RegressOptions>();
  command->add_option("--baseline", options->baseline, "JSON report or HDF5 dump of before")
      ->required()
      ->type_name("A");
  command->add_option("--candidate", options->candidate, "the same of after")->required()->type_name("B");
  command->add_option("--json", options->json, "write the findings as JSON; '-' for stdout")
      ->type_name("FILE");
  command->add_option("--markdown", options->markdown, "write Markdown, made for a pull request's comment")
      ->type_name("FILE");
  command->add_option("--html", options->html, "write a page with both sides of every change")
      ->type_name("FILE");
  command
      ->add_option("--approvals", options->approvals,
                   "changes that somebody let pass; default: beside A, as A.approved.json")
      ->type_name("FILE");
  command->add_flag("--approve", options->approve,
                    "let the changes found pass from now on: adds them to the approvals");
  command->add_option("--why", options->why, "the reason, with --approve")->type_name("REASON");
  command->add_option("--by", options->by, "who approves; default: git's user, or $USER")->type_name("NAME");
  command->footer(
      "An approved change is listed with who let it pass and why; what goes beyond it (a larger error, more\n"
      "elements, another field) is reported as before.\n"
      "Example: assay regress --baseline before.json --candidate after.json --approve --why 'sums in fp32'\n"
      "Exit codes: 0 same or approved, 4 legal change, 1 regression, 3 different problems.");
  command->callback([options, &program] {
    program.selected = [options, &program] { return run(*options, program.command_line); };
  });
}

}  // namespace assay::cli
