// assay bench layer: the fused GPU layer under graph replay beside cuBLAS and the roofline. Timed is only
// what the judge has just passed at 16 tokens and, at the timed size, gives the other variant's bits.
#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "fixtures/fixtures.h"
#include "gpu/autotune.h"
#include "gpu/bench.h"
#include "harness/cli/commands.h"
#include "harness/cli/environment.h"
#include "harness/cli/kernel_config.h"
#include "harness/cli/option_use.h"
#include "harness/cli/output.h"
#include "harness/cli/peer_times.h"
#include "harness/cli/problems.h"
#include "harness/contract/error.h"
#include "harness/host/atomic_file.h"
#include "harness/judge/judge.h"
#include "reference_cpu/reference_run.h"

namespace assay::cli {
namespace {

struct LayerOptions {
  std::vector<std::string> fixtures = {"qwen3_30b_a3b_t4096"};
  std::vector<std::string> routings = {"natural"};
  std::vector<std::int64_t> tokens = {1, 16, 128, 1024, 4096};
  std::string contract = "hf";
  KernelConfigTexts kernel_config;
  std::string json;
  bool autotune = false;
  bool permute_x = true;
  bool permute_y = false;
  bool backward = false;
  bool peers = false;
  double peer_seconds = 300.0;
};

Problem with_tokens(const std::string& name, const std::string& routing, std::int64_t tokens) {
  Fixture fixture = find_fixture(name);
  fixture.batch = 1;
  fixture.sequence = tokens;
  fixture.routing = routing;
  return make_problem(fixture);
}

/// The judge's headline on the layer of 16 tokens; throws where it does not pass.
std::string verified(const Problem& few, const GpuOptions& options) {
  Candidate candidate = run_gpu_fused(few, options);
  candidate.ties = TieRule::LowestIndex;  // what the pipeline's row declares: equal probabilities are common
                                          // in skewed routings
  JudgeOptions judging;
  judging.reference = make_reference;
  const auto result = judge(few, candidate, judging);
  if (result.verdict != Verdict::Passed)
    throw InputError(fmt::format("what does not pass is not timed: {}, {}: {}", few.name,
                                 describe(options.kernel_config_fwd), result.headline));
  return result.headline;
}

nlohmann::ordered_json to_json(const GpuBenchmark& run, const std::string& fixture,
                               const std::string& routing, const nlohmann::ordered_json& configs) {
  auto timings = nlohmann::ordered_json::array();
  for (const auto& t : run.timings) {
    nlohmann::ordered_json row = {{"what", t.what},
                                  {"median_us", t.median_us},
                                  {"fastest_us", t.fastest_us},
                                  {"slowest_us", t.slowest_us}};
    if (t.flops > 0) row["tflops"] = t.tflops();
    if (t.limit_us > 0) {
      row["limit_us"] = t.limit_us;
      row["share_of_limit"] = t.limit_us / t.median_us;
    }
    timings.push_back(std::move(row));
  }
  nlohmann::ordered_json json = {
      {"fixture", fixture},
      {"routing", routing},
      {"tokens", run.tokens},
      {"device", run.device},
      {"variant", run.variant},
      {"experts_hit", run.experts_hit},
      {"fewest_rows", run.fewest_rows},
      {"most_rows", run.most_rows},
      {"sm_clock_mhz", run.sm_clock_mhz},
      {"power_watts", run.power_watts},
      {"verified", {{"equal_to", run.compared_with}, {"tokens", run.tokens}, {"words", run.compared_words}}},
      {"timings", std::move(timings)}};
  json.update(configs);
  if (!run.left_out.empty()) json["left_out"] = run.left_out;
  return json;
}

void print(std::FILE* to, const GpuBenchmark& run, const std::string& fixture, const std::string& routing) {
  fmt::print(to, "\n{}, {} routing, {}, {}, T = {}: {} experts hit, {} to {} rows each; {} MHz, {} W\n",
             fixture, routing, run.device, run.variant, run.tokens, run.experts_hit, run.fewest_rows,
             run.most_rows, run.sm_clock_mhz, run.power_watts);
  fmt::print(to, "before: {} words of all results equal to those of {} at this size\n", run.compared_words,
             run.compared_with);
  fmt::print(to, "{:<38} {:>10} {:>21} {:>9} {:>10} {:>7}\n", "", "median us", "fastest..slowest us",
             "TFLOP/s", "limit us", "share");
  for (const auto& t : run.timings) {
    fmt::print(to, "{:<38} {:>10.1f} {:>10.1f}..{:<9.1f}", t.what, t.median_us, t.fastest_us, t.slowest_us);
    fmt::print(to, " {:>9}", t.flops > 0 ? fmt::format("{:.0f}", t.tflops()) : "");
    if (t.limit_us > 0) fmt::print(to, " {:>10.1f} {:>6.0f}%", t.limit_us, 100.0 * t.limit_us / t.median_us);
    fmt::print(to, "\n");
  }
  if (!run.left_out.empty()) fmt::print(to, "not timed: {}\n", run.left_out);
}

nlohmann::ordered_json peers_json(const std::vector<PeerTime>& peers, const std::vector<QuotedTime>& quoted,
                                  const GpuBenchmark& ours) {
  auto timed = nlohmann::ordered_json::array();
  for (const auto& one : peers) {
    if (one.tokens != 0 && one.tokens != ours.tokens) continue;
    timed.push_back({{"peer", one.peer}, {"version", one.version}, {"pass", one.pass}});
    if (!one.why.empty()) {
      timed.back()["not_timed"] = one.why;
      continue;
    }
    timed.back().update({{"median_us", one.median_us},
                         {"fastest_us", one.fastest_us},
                         {"slowest_us", one.slowest_us},
                         {"launched", one.launched},
                         {"times_ours", one.median_us / our_median_us(ours, one.pass)}});
  }
  auto elsewhere = nlohmann::ordered_json::array();
  for (const auto& one : quoted)
    elsewhere.push_back({{"peer", one.who},
                         {"pass", one.pass},
                         {"fastest_us", one.fastest_us},
                         {"slowest_us", one.slowest_us},
                         {"quoted_from", kQuotedFrom}});
  return {{"peers", timed}, {"quoted", elsewhere}};
}

ExitCode layer(const LayerOptions& given) {
  if (const auto why = gpu_unavailable()) throw InputError(*why);
  GpuOptions options;
  options.contract = given.contract;
  options.permute_x = given.permute_x;
  options.permute_y = given.permute_y;
  const KernelConfigTexts asked =
      given.autotune
          ? KernelConfigTexts{std::string(kAutotune), std::string(kAutotune), std::string(kAutotune)}
          : given.kernel_config;
  const bool tuning =
      asked.forward == kAutotune || asked.backward_dX == kAutotune || asked.backward_dW == kAutotune;
  std::FILE* const text = given.json == kStdout ? stderr : stdout;
  auto cases = nlohmann::ordered_json::array();
  auto checks = nlohmann::ordered_json::array();
  for (const auto& fixture : given.fixtures)
    for (const auto& routing : given.routings) {
      Problem few = with_tokens(fixture, routing, 16);
      if (!given.backward) few.output_gradient = {};
      const Problem problem = with_tokens(fixture, routing, *std::ranges::max_element(given.tokens));
      // A tuned config is that of one number of tokens; else all are timed at once and the weights made once.
      std::vector<std::vector<std::int64_t>> rounds = {given.tokens};
      if (tuning) {
        rounds.clear();
        for (const std::int64_t tokens : given.tokens) rounds.push_back({tokens});
      }
      for (const auto& tokens : rounds) {
        Problem tuned_on = tuning ? with_tokens(fixture, routing, tokens.front()) : few;
        if (!given.backward) tuned_on.output_gradient = {};
        set_kernel_configs(options, asked, tuned_on);
        options.debug_fields = true;
        const auto headline = verified(few, options);
        options.debug_fields = false;
        nlohmann::ordered_json configs = {{"kernel_config", describe(options.kernel_config_fwd)}};
        if (given.backward) {
          configs["kernel_config_bwd_dX"] =
              describe(options.kernel_config_bwd_dX.value_or(options.kernel_config_fwd));
          configs["kernel_config_bwd_dW"] = describe(options.kernel_config_bwd_dW);
        }
        checks.push_back(
            {{"fixture", fixture}, {"routing", routing}, {"tokens", 16}, {"headline", headline}});
        checks.back().update(configs);
        const auto runs = bench_gpu_fused(problem, tokens, options, given.backward);
        const auto peers = given.peers ? time_peers(problem, tokens, given.backward, given.peer_seconds)
                                       : std::vector<PeerTime>();
        for (const auto& run : runs) {
          print(text, run, fixture, routing);
          cases.push_back(to_json(run, fixture, routing, configs));
          if (!given.peers) continue;
          const auto quoted = routing == "natural" ? quoted_times(problem.config, run.tokens, given.backward)
                                                   : std::vector<QuotedTime>();
          fmt::print(text, "{}", peer_lines(peers, quoted, run));
          cases.back().update(peers_json(peers, quoted, run));
        }
      }
    }
  if (!given.json.empty()) {
    const nlohmann::ordered_json json = {
        {"schema", "assay-bench"},
        {"version", 1},
        {"program", version()},
        {"made", utc_now()},
        {"contract", given.contract},
        {"roofline", {{"flops_per_second", kRooflineFlops}, {"bytes_per_second", kRooflineBytes}}},
        {"verified", checks},
        {"cases", cases}};
    if (given.json == kStdout)
      fmt::print("{}\n", json.dump(1));
    else
      write_file_atomically(given.json, json.dump(1) + "\n");
  }
  return ExitCode::Passed;
}

}  // namespace

void add_bench_layer(CLI::App& bench, Program& program) {
  auto options = std::make_shared<LayerOptions>();
  auto* command = bench.add_subcommand(
      "layer", "the fused GPU layer under graph replay, beside cuBLAS and the roofline; verified first");
  command
      ->add_option("--fixture", options->fixtures,
                   "whose layers are timed, with as many tokens as --tokens says")
      ->type_name("F...")
      ->capture_default_str();
  command->add_option("--routing", options->routings, "natural, hot_expert, ...: how tokens choose experts")
      ->type_name("R...")
      ->capture_default_str();
  command->add_option("--tokens", options->tokens, "numbers of tokens")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("T...")
      ->capture_default_str();
  command->add_option("--contract", options->contract, "hf or fused_fp32")->capture_default_str();
  command
      ->add_option("--permute-x", options->permute_x, "gather rows inside the first product (default true)")
      ->type_name("BOOL");
  command
      ->add_option("--permute-y", options->permute_y, "the second product writes slot order (default false)")
      ->type_name("BOOL");
  command->add_flag("--backward", options->backward, "the backward pass, too");
  command->add_flag(
      "--peers", options->peers,
      "other projects' layers as well, those that Python can import (ASSAY_PYTHON): HuggingFace, "
      "Unsloth, Liger, ScatterMoE, SonicMoE");
  constexpr double kLongest = 1e6;
  command
      ->add_option("--peer-limit", options->peer_seconds,
                   "seconds that a peer may take for all of it, its compilation included (default 300)")
      ->check(CLI::Range(1e-3, kLongest))
      ->type_name("SECONDS");
  auto* typed = command
                    ->add_option(std::string(kOptionForward), options->kernel_config.forward,
                                 "key=value,... or autotune")
                    ->type_name("C");
  auto* typed_dx = command
                       ->add_option(std::string(kOptionDx), options->kernel_config.backward_dX,
                                    "the same for gradients of rows (default: as --kernel-config)")
                       ->type_name("C");
  auto* typed_dw = command
                       ->add_option(std::string(kOptionDw), options->kernel_config.backward_dW,
                                    "the same for gradients of the experts' weights")
                       ->type_name("C");
  command
      ->add_flag("--autotune", options->autotune, "the best verified kernel configs, measured once and kept")
      ->excludes(typed)
      ->excludes(typed_dx)
      ->excludes(typed_dw);
  command->add_option("--json", options->json, "write times, limits, clocks and power; '-' for stdout")
      ->type_name("FILE");
  command->footer(
      "First the judge must pass the layer at 16 tokens, and both kernel variants must give the same bits "
      "at\n"
      "every size that is timed. Microseconds are of CUDA-graph replays with other data in the L2: median,\n"
      "fastest, slowest. 'limit' is what the card could reach: the larger of operations at 790 TFLOP/s and\n"
      "least bytes at 4.3 TB/s (an H200, measured); 'share' is how near the median comes. Figures and their\n"
      "reasons: gpu/PERFORMANCE.md.\n"
      "Examples: assay bench layer --fixture qwen3_30b_a3b_t4096 --tokens 1 128 4096 --json times.json\n"
      "          assay bench layer --peers --backward --tokens 4096\n"
      "Exit codes: 0 timed, 3 no GPU, or what was to be timed does not pass.");
  command->callback([options, command, &program] {
    program.selected = [options, command] {
      require_read(*command, {{"--peer-limit", options->peers, "--peers"},
                              {kOptionDx, options->backward, "--backward"},
                              {kOptionDw, options->backward, "--backward"}});
      check(options->kernel_config);  // refused before anything is made
      for (const auto& name : options->fixtures) find_fixture(name);
      return layer(*options);
    };
  });
}

}  // namespace assay::cli
