// assay list hashes: SHA-256 of generated tensors, line for line as `python3 -m assay_golden hash` prints
// them, so that a plain diff shows whether two implementations of the generator agree.
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "fixtures/fill.h"
#include "fixtures/fixtures.h"
#include "golden/sha256.h"
#include "harness/cli/commands.h"
#include "harness/cli/problems.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

void print_experts(const Fixture& fixture, const FieldRow& field, const std::vector<std::int64_t>& chosen) {
  const Generator generator = generator_of(fixture, field.id);
  const std::int64_t experts = generator.shape.at(0);
  auto wanted = chosen;
  if (wanted.empty())
    for (std::int64_t expert = 0; expert < experts; ++expert) wanted.push_back(expert);
  for (const auto expert : wanted) {
    if (expert >= experts)
      throw UsageError(
          fmt::format("{} has experts 0 to {}, found --expert {}", fixture.name, experts - 1, expert));
    const ExpertMatrix matrix = generate_expert(generator, expert);
    fmt::print("{} {}[{}] {}\n", fixture.name, field.name, expert, sha256_hex(std::as_bytes(matrix.values)));
  }
}

}  // namespace

void add_list_hashes(CLI::App& list, Program& program) {
  struct Options {
    std::vector<std::string> patterns;
    std::vector<std::int64_t> experts;
  };
  auto options = std::make_shared<Options>();
  auto* command = list.add_subcommand("hashes", "SHA-256 of the tensors of fixtures, to compare generators");
  command->add_option("--fixture", options->patterns, "named problems, * and ? match; groups: small, large")
      ->required()
      ->type_name("GLOB...");
  command->add_option("--expert", options->experts, "only these experts' weights")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N...");
  command->callback([options, &program] {
    program.selected = [options] {
      for (const auto& name : matching_fixtures(options->patterns)) {
        const Fixture& fixture = find_fixture(name);
        for (const auto& field : kFields) {
          if (field.match != Match::Given) continue;
          if (field.id == Field::gate_up_proj || field.id == Field::down_proj)
            print_experts(fixture, field, options->experts);
          else
            fmt::print("{} {} {}\n", name, field.name,
                       sha256_hex(materialise(generator_of(fixture, field.id)).bytes()));
        }
      }
      return ExitCode::Passed;
    };
  });
}

}  // namespace assay::cli
