// assay merge: the results of shards as one report.
#include <algorithm>
#include <map>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "harness/cli/commands.h"
#include "harness/cli/output.h"
#include "harness/cli/saved_report.h"
#include "harness/cli/shard.h"
#include "harness/contract/error.h"
#include "reports/sweep_report.h"

namespace assay::cli {
namespace {

/// The shard a report is of; none where it is of no sharded run.
std::optional<Shard> shard_of(const Report& report, const std::string& path) {
  for (const auto& [what, value] : report.environment)
    if (what == kShardFact) return shard_of_words(value, path);
  return std::nullopt;
}

/// All shares of one run, each once: a share that is missing is a case nobody judged.
void require_every_shard(const std::map<std::size_t, std::string>& seen, std::size_t of) {
  for (std::size_t index = 1; index <= of; ++index)
    if (!seen.contains(index))
      throw InputError(fmt::format("shard {} of {} is missing: name the result of every shard", index, of));
}

Report merged(const std::vector<std::string>& paths, const std::string& command_line) {
  Report all = start_report("assay merge", command_line);
  std::map<std::size_t, std::string> shards;
  std::map<std::pair<std::string, std::string>, std::string> from;
  std::size_t of = 0;
  for (const auto& path : paths) {
    Report next = read_report(path);
    if (const auto shard = shard_of(next, path)) {
      if (of != 0 && shard->of != of)
        throw InputError(fmt::format("{} is of {} shards, {} of {}: merge the shards of one run", path,
                                     shard->of, shards.begin()->second, of));
      of = shard->of;
      if (const auto [other, first] = shards.emplace(shard->index, path); !first)
        throw InputError(fmt::format("{} and {} are both shard {}: name each once", other->second, path,
                                     in_words(*shard)));
    }
    all.seconds += next.seconds;
    all.peak_memory_bytes = std::max(all.peak_memory_bytes, next.peak_memory_bytes);
    for (auto& one : next.cases) {
      const auto [other, first] = from.emplace(std::pair(one.problem, one.candidate), path);
      if (!first)
        throw InputError(fmt::format("{}, {} is in {} and in {}: name each result once", one.problem,
                                     one.candidate, other->second, path));
      all.cases.push_back(std::move(one));
    }
  }
  require_every_shard(shards, of);
  // By name: however the cases were shared out.
  std::ranges::stable_sort(all.cases, {}, [](const CaseResult& one) {
    return std::pair<const std::string&, const std::string&>(one.problem, one.candidate);
  });
  return all;
}

}  // namespace

void add_merge(CLI::App& app, Program& program) {
  auto* command =
      app.add_subcommand("merge", "the results of shards (verify --shard I/N --json) as one report");
  struct MergeOptions {
    std::vector<std::string> results;
    bool sweep = false;
    OutputOptions output;
  };
  auto options = std::make_shared<MergeOptions>();
  command->add_option("RESULT", options->results, "JSON files written by verify --json")
      ->required()
      ->type_name("RESULT.json...");
  command->add_flag("--sweep", options->sweep,
                    "of verify --sweep: a table of the configs; the worst first, as verify orders them");
  add_output_options(*command, options->output);
  command->footer(
      "Without --sweep cases are ordered by problem and candidate; the exit code is that of the worst of "
      "them.\n"
      "A shard that is missing or named twice is refused (3).");
  command->callback([options, &program] {
    program.selected = [options, &program] {
      require_outputs_apart(output_files(options->output), options->results);
      Report all = merged(options->results, program.command_line);
      if (!options->sweep) return emit(all, options->output);
      const std::string table = sweep_table(all.cases, text_options(options->output));
      if (!options->output.quiet) std::fwrite(table.data(), 1, table.size(), text_stream(options->output));
      all.cases = sweep_order(std::move(all.cases));
      return emit(all, options->output);
    };
  });
}

}  // namespace assay::cli
