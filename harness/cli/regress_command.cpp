// assay regress: what changed between two runs, in sentences.
#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "golden/held_tensor.h"
#include "golden/sha256.h"
#include "harness/cli/commands.h"
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

std::string_view name(Severity severity) {
  constexpr std::string_view names[] = {"same", "legal", "REGRESSION"};
  return names[static_cast<int>(severity)];
}

std::string to_json(const std::vector<Finding>& findings) {
  auto array = nlohmann::ordered_json::array();
  for (const auto& finding : findings)
    array.push_back({{"severity", name(finding.severity)}, {"sentence", finding.sentence}});
  return json_text({{"schema", "assay-regress"},
                    {"version", 1},
                    {"severity", name(worst(findings))},
                    {"findings", array}},
                   2) +
         "\n";
}

}  // namespace

void add_regress(CLI::App& app, Program& program) {
  auto* command =
      app.add_subcommand("regress", "compare two reports or two dumps: verdicts, error ratios, bits, time");
  struct Options {
    std::string baseline;
    std::string candidate;
    std::string json;
    std::string markdown;
  };
  auto options = std::make_shared<Options>();
  command->add_option("--baseline", options->baseline, "JSON report or HDF5 dump of before")
      ->required()
      ->type_name("A");
  command->add_option("--candidate", options->candidate, "the same of after")->required()->type_name("B");
  command->add_option("--json", options->json, "write the findings as JSON; '-' for stdout")
      ->type_name("FILE");
  command->add_option("--markdown", options->markdown, "write Markdown, made for a pull request's comment")
      ->type_name("FILE");
  command->footer("Exit codes: 0 same, 4 legal change, 1 regression.");
  command->callback([options, &program] {
    program.selected = [options] {
      const bool reports = options->baseline.ends_with(".json");
      if (reports != options->candidate.ends_with(".json"))
        throw UsageError("regress compares two reports (.json) or two dumps (.h5), not one of each");
      if (!options->json.empty() && options->json != kStdout)
        require_outputs_apart({{"--json", options->json}}, {options->baseline, options->candidate});
      Side before;
      Side after;
      if (reports) {
        before.report = read_report(options->baseline);
        after.report = read_report(options->candidate);
      } else {
        before.file = load_file(options->baseline);
        after.file = load_file(options->candidate);
        require_one_problem(*before.file, *after.file);
        const Problem& problem = before.file->has_inputs ? before.file->problem : after.file->problem;
        if (!before.file->has_inputs && !after.file->has_inputs)
          throw InputError(fmt::format(
              "{} has no inputs and weights: at least one of the two dumps must carry them, or name "
              "their generators",
              options->candidate));
        judge_side(before, problem);
        judge_side(after, problem);
        // Two names of one problem: the comparison pairs cases by problem and candidate.
        after.report->cases.front().problem = before.report->cases.front().problem;
        after.report->cases.front().candidate = before.report->cases.front().candidate;
      }
      if (before.file) {
        hold_alike(before.file->candidate, after.file->candidate);
        hold_alike(after.file->candidate, before.file->candidate);
      }
      const auto findings =
          regress(&*before.report, &*after.report, before.file ? &before.file->candidate : nullptr,
                  after.file ? &after.file->candidate : nullptr);
      if (options->json == "-")
        fmt::print("{}", to_json(findings));
      else
        for (const auto& finding : findings)
          fmt::print("{:<10}  {}\n", name(finding.severity), printable(finding.sentence));
      if (!options->json.empty() && options->json != "-")
        write_file_atomically(options->json, to_json(findings));
      if (!options->markdown.empty()) write_file_atomically(options->markdown, render_markdown(findings));
      return exit_code(worst(findings));
    };
  });
}

}  // namespace assay::cli
