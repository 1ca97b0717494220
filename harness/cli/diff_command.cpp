// assay diff: two candidates of one problem without a golden, where they part first and who is nearer to
// float64.
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "harness/cli/commands.h"
#include "harness/cli/contract_auto.h"
#include "harness/cli/output.h"
#include "harness/cli/problems.h"
#include "harness/contract/counted_words.h"
#include "harness/contract/error.h"
#include "harness/judge/diff.h"
#include "reference_cpu/reference_run.h"
#include "reports/markdown.h"
#include "reports/parting_report.h"

namespace assay::cli {
namespace {

struct DiffOptions {
  std::string a;
  std::string b;
  OutputOptions output;
};

/// The problem both are of; throws InputError where there is none.
const Problem& common_problem(const GoldenFile& a, const GoldenFile& b, const DiffOptions& options) {
  if (!a.has_inputs && !b.has_inputs)
    throw InputError(fmt::format(
        "neither {} nor {} has inputs and weights: one of the two must carry them, or name their generators",
        options.a, options.b));
  std::optional<std::string> other;
  if (a.has_inputs && b.has_inputs) {
    other = other_problem(a.problem, b.problem);
  } else if (a.problem.config != b.problem.config || a.problem.sizes().tokens != b.problem.sizes().tokens) {
    other = fmt::format("A and B are of different problems: {}, {} in A, {}, {} in B",
                        to_string(a.problem.config), counted(a.problem.sizes().tokens, "token"),
                        to_string(b.problem.config), counted(b.problem.sizes().tokens, "token"));
  }
  if (other)
    throw InputError(
        fmt::format("{}; A is {}, B is {}: compare two dumps of one problem", *other, options.a, options.b));
  return a.has_inputs ? a.problem : b.problem;
}

JudgedSide judged_side(const Problem& problem, const Candidate& candidate, const std::string& path) {
  JudgeOptions judging;
  judging.reference = make_reference;
  ContractTrials trials = try_contracts(problem, candidate, judging);
  trials.best.candidate = path;
  return {&candidate, {path, std::move(trials.passed), std::move(trials.best)}, trials.fitted};
}

ExitCode run(const DiffOptions& options, const std::string& command_line) {
  require_one_on_stdout(options.output);
  require_outputs_apart(output_files(options.output), {options.a, options.b});
  const GoldenFile a = load_file(options.a);
  const GoldenFile b = load_file(options.b);
  const Problem& problem = common_problem(a, b, options);
  const Parting parting = diff(problem, judged_side(problem, a.candidate, options.a),
                               judged_side(problem, b.candidate, options.b), make_reference);
  Report judged = start_report("assay diff", command_line);
  judged.cases = {parting.a.judged, parting.b.judged};
  if (!options.output.quiet) {
    const std::string text =
        render_parting_text(parting, text_options(options.output)) + report_names(options.output);
    std::fwrite(text.data(), 1, text.size(), text_stream(options.output));
  }
  if (!options.output.json.empty()) write_output(options.output.json, parting_json(parting, judged));
  if (!options.output.html.empty()) write_output(options.output.html, render_parting_html(parting, judged));
  if (!options.output.markdown.empty())
    write_output(options.output.markdown, render_markdown(parting, judged));
  require_stdout();
  return exit_code(parting);
}

}  // namespace

void add_diff(CLI::App& app, Program& program) {
  auto* command = app.add_subcommand("diff",
                                     "two candidates without a golden: the first field where they part, "
                                     "legal or not, who is nearer to float64");
  auto options = std::make_shared<DiffOptions>();
  command->add_option("A", options->a, "golden or dump")->required()->type_name("FILE");
  command->add_option("B", options->b, "another of the same problem")->required()->type_name("FILE");
  command->add_option("--html", options->output.html, "write a single-file HTML page; '-' for stdout")
      ->type_name("FILE");
  command->add_option("--json", options->output.json, "write what was found as JSON; '-' for stdout")
      ->type_name("FILE");
  command
      ->add_option("--markdown", options->output.markdown,
                   "write Markdown, made for a pull request's comment; '-' for stdout")
      ->type_name("FILE");
  command->add_option("--color", options->output.colour, "colours: auto, always or never")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->type_name("WHEN");
  command->add_flag("-q,--quiet", options->output.quiet, "no text on stdout");
  command->footer(
      "Each is judged under every contract; rows are matched by token and expert.\n"
      "Example: assay diff golden/data/odd.grouped_mm.h5 golden/data/odd.eager.h5\n"
      "Exit codes: 0 equal and legal, 4 they part and both are legal, 1 one is not, 3 different problems,\n"
      "77 no field in common.");
  command->callback([options, &program] {
    program.selected = [options, &program] { return run(*options, program.command_line); };
  });
}

}  // namespace assay::cli
