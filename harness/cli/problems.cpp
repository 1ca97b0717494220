#include "harness/cli/problems.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include "fixtures/fill.h"
#include "fixtures/fixtures.h"
#include "fixtures/models.h"
#include "harness/contract/error.h"
#include "harness/contract/printable.h"
#include "harness/judge/not_judged.h"

namespace assay::cli {
namespace {

// Experts that are hit are needed by several passes; two gigabytes hold those of every committed golden.
constexpr std::string_view kCheckpoint = "checkpoint";  // generator name (golden/SCHEMA.md)

constexpr std::size_t kExpertCacheBytes = std::size_t{2} << 30;
constexpr std::int64_t kMostNamed = 8;  // in one sentence

/// Judged in about a second. The Python package has the same groups (sources.py).
bool is_small(const Fixture& fixture) {
  constexpr std::int64_t kMostWeights = 1 << 18;  // of one of the products
  constexpr std::int64_t kMostTokens = 256;
  const MoeConfig& c = find_model(fixture.model).config;
  return c.num_experts * c.moe_intermediate_size * c.hidden_size <= kMostWeights &&
         fixture.tokens() <= kMostTokens;
}

}  // namespace

Regenerators regenerators() {
  // The exporter names a checkpoint's weights instead of storing them; where that folder is now, the file
  // cannot know.
  const auto refuse_checkpoint = [](const Generator& generator) {
    if (generator.fill == kCheckpoint)
      throw InputError(fmt::format(
          "the weights are those of layer {} of a checkpoint, which the file does not hold; judge it with "
          "--checkpoint DIR --layer {} --input FILE --pipeline dump:FILE",
          generator.stream, generator.stream));
  };
  return {.tensor =
              [=](const Generator& generator) {
                refuse_checkpoint(generator);
                return materialise(generator);
              },
          .expert =
              [=](const Generator& generator, Field, std::int64_t expert) {
                refuse_checkpoint(generator);
                return generate_expert(generator, expert);
              }};
}

GoldenFile load_file(const std::filesystem::path& path) {
  GoldenFile file = read_golden(path, regenerators());
  if (file.problem.name.empty()) file.problem.name = path.stem().string();
  file.candidate.name = path.string();
  // Here, where a file's texts enter the program: none may reach a terminal raw.
  for (auto* text : {&file.problem.name, &file.candidate.name, &file.candidate.producer,
                     &file.candidate.device, &file.candidate.compute_capability})
    *text = printable(*text);
  for (auto& remark : file.candidate.remarks) remark = printable(remark);
  if (file.problem.experts) file.problem.experts = cached_experts(file.problem.experts, kExpertCacheBytes);
  return file;
}

Problem load_fixture(std::string_view name) {
  Problem problem = make_problem(find_fixture(name));
  problem.experts = cached_experts(problem.experts, kExpertCacheBytes);
  return problem;
}

void add_seed_option(CLI::App& command, std::uint64_t& seed) {
  const std::function<std::string(std::string&)> in_range = [](std::string& text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && end == text.data() + text.size();
    return whole ? std::string() : fmt::format("expected 0 to 2^64 - 1, found {}", text);
  };
  command.add_option("--seed", seed, "seed of that input")->check(CLI::Validator(in_range, "UINT"));
}

std::vector<std::string> matching_fixtures(const std::vector<std::string>& patterns) {
  std::vector<std::string> names;
  for (const auto& pattern : patterns) {
    const bool group = pattern == "small" || pattern == "large";
    for (const Fixture* fixture : match_fixtures(group ? "*" : pattern))
      if ((!group || is_small(*fixture) == (pattern == "small")) &&
          std::ranges::find(names, fixture->name) == names.end())
        names.emplace_back(fixture->name);
  }
  return names;
}

std::vector<std::string> small_files_first(std::vector<std::string> paths) {
  const auto size = [](const std::string& path) {
    std::error_code none;
    const auto bytes = std::filesystem::file_size(path, none);
    return none ? 0 : bytes;
  };
  std::ranges::stable_sort(paths, {}, size);
  return paths;
}

std::vector<std::string> small_fixtures_first(std::vector<std::string> names) {
  const auto work = [](const std::string& name) {
    const Fixture& fixture = find_fixture(name);
    const MoeConfig& c = find_model(fixture.model).config;
    // Weights are made whole, products are those of the rows.
    return static_cast<double>(c.num_experts + fixture.tokens() * c.top_k) *
           static_cast<double>(c.hidden_size * c.moe_intermediate_size);
  };
  std::ranges::stable_sort(names, {}, work);
  return names;
}

LayerOfCheckpoint load_checkpoint(const std::filesystem::path& directory, std::int64_t layer,
                                  const std::filesystem::path& input, std::int64_t tokens,
                                  std::uint64_t seed) {
  const auto config = extract_hf_weights(directory, layer).config;
  Tensor hidden;
  std::optional<Generator> generator;
  if (!input.empty()) {
    const auto file = load_file(input);
    if (file.problem.config.hidden_size != config.hidden_size)
      throw InputError(fmt::format("{}: expected an input of hidden size {}, found {}", input.string(),
                                   config.hidden_size, file.problem.config.hidden_size));
    hidden = file.problem.input;
  } else {
    // Standard deviation 1: the sum of four uniform 16-bit lanes has 37837.2...
    generator = Generator{
        "gaussian",     "natural", seed, stream_of(Field::input_hidden_states), {tokens, config.hidden_size},
        1.0 / 37837.227};
    hidden = materialise(*generator);
  }
  auto made = from_hf(directory, layer, std::move(hidden));
  Problem& problem = made.problem;
  problem.seed = seed;
  problem.generators[static_cast<std::size_t>(Field::input_hidden_states)] = generator;
  problem.experts = cached_experts(problem.experts, kExpertCacheBytes);
  return made;
}

void tell_unknown(CaseResult& result, const Problem& problem, const Candidate& candidate,
                  const std::vector<UnknownDataset>& unknown) {
  std::vector<Unjudged> unjudged;
  for (const auto& [path, strange] : unknown) {
    const auto likely = likely_field(path);
    // What is spelt right lies in another group than its own.
    unjudged.push_back({printable(path), "it is not part of the schema", strange,
                        likely.empty()
                            ? std::string()
                            : fmt::format("/{}/{}", name(row(*find_field(likely)).group), likely)});
  }
  tell_not_judged(result, problem, candidate, unjudged);
}

std::string nan_in_weights(const Problem& problem, const std::vector<std::int64_t>& expert_load) {
  const auto holds_nan = [](std::span<const Bf16> values) {
    return std::ranges::any_of(values, [](Bf16 value) { return std::isnan(to_float(value)); });
  };
  std::vector<std::string> found;
  if (holds_nan(problem.gate.as<Bf16>())) found.emplace_back("gate");
  std::int64_t experts = 0;
  for (std::size_t e = 0; e < expert_load.size(); ++e)
    for (const Field field : {Field::gate_up_proj, Field::down_proj})
      if (expert_load[e] > 0 && holds_nan(problem.experts(field, static_cast<std::int64_t>(e)).values) &&
          ++experts <= kMostNamed)
        found.push_back(fmt::format("{} of expert {}", name(field), e));
  if (found.empty()) return "";
  const auto more = std::max<std::int64_t>(experts - kMostNamed, 0);
  return fmt::format("the weights hold NaN: {}{}", fmt::join(found, ", "),
                     more > 0 ? fmt::format(" and {} more", more) : "");
}

}  // namespace assay::cli
