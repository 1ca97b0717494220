// Where problems come from: fixtures, golden files and checkpoints, with the generators of `fixtures` wired
// in.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "golden/checkpoint.h"
#include "golden/golden_file.h"
#include "harness/contract/problem.h"
#include "harness/contract/report.h"

namespace CLI {
class App;
}

namespace assay::cli {

/// --seed of a seeded input. Refuses what is not in 0 .. 2^64 - 1: the library lets -1 wrap and 2^64
/// saturate.
void add_seed_option(CLI::App& command, std::uint64_t& seed);

/// The generators of `fixtures`, for files that name their inputs and weights instead of storing them.
Regenerators regenerators();

/// Reads a golden or dump; experts are cached in memory while they fit.
GoldenFile load_file(const std::filesystem::path& path);

/// A fixture's problem; experts are cached in memory while they fit.
Problem load_fixture(std::string_view name);

/// Names of the fixtures that match any of the patterns or are of a group, small or large, each once.
std::vector<std::string> matching_fixtures(const std::vector<std::string>& patterns);

/// The same names, large problems last, so that the others' results are there early: files by size, fixtures
/// by work.
std::vector<std::string> small_files_first(std::vector<std::string> paths);
std::vector<std::string> small_fixtures_first(std::vector<std::string> names);

/// Layer `layer` of the checkpoint in `directory` on a seeded gaussian input of `tokens` tokens, or on the
/// input_hidden_states of the file `input` if it is not empty.
LayerOfCheckpoint load_checkpoint(const std::filesystem::path& directory, std::int64_t layer,
                                  const std::filesystem::path& input, std::int64_t tokens,
                                  std::uint64_t seed);

/// Counts in the headline what the file holds and the schema does not know (not_judged.h).
void tell_unknown(CaseResult& result, const Problem& problem, const Candidate& candidate,
                  const std::vector<UnknownDataset>& unknown);

/// The weights that hold NaN, in a sentence; empty where none does. Of experts only those with rows.
std::string nan_in_weights(const Problem& problem, const std::vector<std::int64_t>& expert_load);

}  // namespace assay::cli
