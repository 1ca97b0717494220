// assay explain: one element, derived completely.
#include <cstdio>
#include <limits>

#include <fmt/format.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "harness/cli/commands.h"
#include "harness/cli/output.h"
#include "harness/cli/pipeline_reads.h"
#include "harness/cli/source.h"
#include "harness/contract/error.h"
#include "harness/contract/layer.h"
#include "harness/contract/place.h"
#include "harness/host/atomic_file.h"
#include "reference_cpu/explain/explain.h"
#include "reports/derivation_report.h"

namespace assay::cli {
namespace {

struct ExplainOptions {
  SourceOptions source;
  std::string field;
  std::string at;
  std::string json;
  std::string mode = "isolated";
  std::string colour = "auto";
  std::size_t terms = 8;
  bool all = false;
};

/// Derivations are of computed fields.
Field computed_field(const std::string& text) {
  const auto field = find_field(text);
  if (field && !given(*field)) return *field;
  std::string valid;
  for (const auto& what : kFields)
    if (!given(what.id)) valid += fmt::format("{}{}", valid.empty() ? "" : ", ", what.name);
  throw UsageError(fmt::format("{} '{}'; valid: {}",
                               field ? "explain takes what the layer computes, and not" : "unknown field",
                               text, valid));
}

ExitCode run(const ExplainOptions& options) {
  Question question;
  question.field = computed_field(options.field);
  question.at = parse_place(options.at);
  question.mode = options.mode == "chained" ? Mode::Chained : Mode::Isolated;
  question.terms = options.all ? std::numeric_limits<std::size_t>::max() : options.terms;
  if (!options.json.empty() && options.json != kStdout)
    require_outputs_apart({{"--json", options.json}}, read_files(options.source));
  SourceOptions asked = options.source;
  asked.backward = row(question.field).group == Group::Backward;
  const Source source = load_source(asked);
  question.declared = source.declared;
  const Derivation derivation = explain(source.problem, source.candidate, source.contract,
                                        source.accumulators, source.predict, question);
  const bool json_on_stdout = options.json == "-";
  if (!options.json.empty() && !json_on_stdout) write_file_atomically(options.json, to_json(derivation));
  if (json_on_stdout) {
    fmt::print("{}", to_json(derivation));
  } else {
    TextOptions text;
    text.colour = wants_colour(options.colour, STDOUT_FILENO);
    text.verbose = options.all;
    fmt::print("{}", render_text(derivation, text));
  }
  return exit_code(derivation.verdict);
}

}  // namespace

void add_explain(CLI::App& app, Program& program) {
  auto* command =
      app.add_subcommand("explain", "one element: its terms, sums, bound, and what would have been accepted");
  auto options = std::make_shared<ExplainOptions>();
  add_source_options(*command, options->source);
  command->add_option("--field", options->field, "a computed field, forward or backward (assay list fields)")
      ->required()
      ->type_name("F");
  command
      ->add_option("--at", options->at,
                   "where: row, token, slot, expert in any sufficient combination, and col")
      ->required()
      ->type_name("AXIS=N,...");
  command
      ->add_option("--mode", options->mode,
                   "isolated: from the candidate's own upstream fields; chained: from the inputs")
      ->check(CLI::IsMember({"isolated", "chained"}));
  command->add_option("--terms", options->terms, "how many of a product's largest terms")
      ->check(CLI::Range(0, 1 << 24))
      ->type_name("N");
  command->add_flag("--all", options->all, "all terms and all partial sums")->excludes("--terms");
  command->add_option("--json", options->json, "write the derivation as JSON; '-' for stdout")
      ->type_name("FILE");
  command->add_option("--color", options->colour, "colours: auto, always or never")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->type_name("WHEN");
  command->footer(
      "Examples: assay explain --golden golden/data/odd.grouped_mm.h5 --field first_gemm --at "
      "token=0,expert=3,col=59\n"
      "          assay explain --golden golden/data/rows.grouped_mm.h5 --field d_down_proj --at "
      "expert=0,row=7,col=3\n"
      "Exit codes: 0 accepted, 1 rejected, 4 accepted but not the bits that the declared accumulator gives, "
      "77 no such field.");
  command->callback([options, command, &program] {
    program.selected = [options, command] {
      require_time_limit_read(*command, std::span(&options->source.pipeline, 1));
      return run(*options);
    };
  });
}

}  // namespace assay::cli
