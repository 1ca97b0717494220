#include "harness/cli/peer_times.h"

#include <unistd.h>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "harness/cli/exporter.h"
#include "harness/contract/error.h"
#include "harness/host/atomic_file.h"

namespace assay::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kForward = "forward";
constexpr std::string_view kBoth = "forward and backward";

// Qwen3-30B-A3B, us. FlashInfer 0.7.4 cute_dsl_fused_moe_bf16 (SM90, tuned per size; ids and weights given),
// SonicMoE 0.1.2.post1 on quack 0.6.5 (4,096 tokens of both passes: 0.3.11), HuggingFace 5.x in a graph.
constexpr QuotedTime kQuoted[] = {
    {"FlashInfer fused, no router", kForward, 1, 39, 39},
    {"FlashInfer fused, no router", kForward, 16, 218, 219},
    {"FlashInfer fused, no router", kForward, 128, 313, 313},
    {"FlashInfer fused, no router", kForward, 1024, 355, 361},
    {"FlashInfer fused, no router", kForward, 4096, 713, 719},
    {"FlashInfer fused, no router", kForward, 16384, 2316, 2339},
    {"FlashInfer two-stage, no router", kForward, 1, 40, 40},
    {"FlashInfer two-stage, no router", kForward, 16, 224, 224},
    {"FlashInfer two-stage, no router", kForward, 128, 320, 320},
    {"FlashInfer two-stage, no router", kForward, 1024, 364, 370},
    {"FlashInfer two-stage, no router", kForward, 4096, 738, 757},
    {"FlashInfer two-stage, no router", kForward, 16384, 2375, 2426},
    {"FlashInfer fused, torch's router", kForward, 1, 63, 63},
    {"FlashInfer fused, torch's router", kForward, 16, 246, 246},
    {"FlashInfer fused, torch's router", kForward, 128, 343, 343},
    {"FlashInfer fused, torch's router", kForward, 1024, 390, 390},
    {"FlashInfer fused, torch's router", kForward, 4096, 782, 782},
    {"FlashInfer fused, torch's router", kForward, 16384, 2512, 2512},
    {"SonicMoE", kForward, 128, 605, 605},
    {"SonicMoE", kForward, 1024, 596, 596},
    {"SonicMoE", kForward, 4096, 825, 825},
    {"SonicMoE", kForward, 16384, 2343, 2361},
    {"HuggingFace grouped_mm", kForward, 1, 128, 128},
    {"HuggingFace grouped_mm", kForward, 16, 396, 399},
    {"HuggingFace grouped_mm", kForward, 128, 554, 559},
    {"HuggingFace grouped_mm", kForward, 1024, 802, 805},
    {"HuggingFace grouped_mm", kForward, 4096, 1873, 1876},
    {"HuggingFace grouped_mm", kForward, 16384, 6644, 6652},
    {"SonicMoE", kBoth, 4096, 2500, 2500},
    {"SonicMoE", kBoth, 16384, 7370, 7430},
};

/// What the peers read, in a folder that goes with them.
struct PeerFiles {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / fmt::format("assay-peers-{}", getpid());
  PeerFiles() { std::filesystem::create_directories(path); }
  ~PeerFiles() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  PeerFiles(const PeerFiles&) = delete;
  PeerFiles& operator=(const PeerFiles&) = delete;

  std::string write(const char* name, std::span<const std::byte> bytes) const {
    std::ofstream file(path / name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!file.flush()) throw InputError(fmt::format("{}: could not be written", (path / name).string()));
    return (path / name).string();
  }
};

PeerTime row_of(const Json& row) {
  return {row.value("peer", ""),        row.value("version", ""),     row.value("pass", ""),
          row.value("tokens", 0),       row.value("launched", ""),    row.value("median_us", 0.0),
          row.value("fastest_us", 0.0), row.value("slowest_us", 0.0), row.value("why", "")};
}

/// ", 3.24 times ours"
std::string ratio_words(double us, double ours) {
  return ours > 0.0 ? fmt::format(", {:.2f} times ours", us / ours) : "";
}

}  // namespace

std::vector<PeerTime> time_peers(const Problem& problem, const std::vector<std::int64_t>& tokens,
                                 bool backward, double seconds) {
  const PeerFiles folder;
  const auto& weights = problem.generators[static_cast<std::size_t>(Field::gate_up_proj)];
  if (!weights) throw InputError("expected a fixture, whose weights are drawn, to time peers on");
  const MoeConfig& c = problem.config;
  Json spec = {{"config",
                {{"hidden_size", c.hidden_size},
                 {"moe_intermediate_size", c.moe_intermediate_size},
                 {"num_experts", c.num_experts},
                 {"top_k", c.top_k},
                 {"norm_topk_prob", c.norm_topk_prob}}},
               {"tokens", tokens},
               {"backward", backward},
               {"seconds", seconds},
               {"scale", weights->scale},
               {"input", folder.write("input", problem.input.bytes())},
               {"gate", folder.write("gate", problem.gate.bytes())},
               {"d_output", nullptr}};
  if (backward) spec["d_output"] = folder.write("d_output", problem.output_gradient.bytes());
  const auto spec_path = folder.path / "spec.json";
  const auto out = folder.path / "times.json";
  write_file_atomically(spec_path, spec.dump());
  const int code =
      run_assay_golden({"assay_golden.peer_times", "--spec", spec_path.string(), "--out", out.string()});
  if (code != 0)
    throw InputError(fmt::format(
        "expected a Python that times the peers (assay_golden.peer_times; ASSAY_PYTHON), found exit code {}",
        code));
  std::vector<PeerTime> rows;
  std::ifstream file(out);
  for (const auto& row : Json::parse(file)) rows.push_back(row_of(row));
  return rows;
}

std::vector<QuotedTime> quoted_times(const MoeConfig& config, std::int64_t tokens, bool backward) {
  const bool measured = config.hidden_size == 2048 && config.moe_intermediate_size == 768 &&
                        config.num_experts == 128 && config.top_k == 8;
  std::vector<QuotedTime> found;
  for (const auto& one : kQuoted)
    if (measured && one.tokens == tokens && (backward || one.pass == kForward)) found.push_back(one);
  return found;
}

double our_median_us(const GpuBenchmark& ours, std::string_view pass) {
  const auto what = pass == kForward ? std::string_view("layer") : pass;
  const auto found = std::ranges::find(ours.timings, what, &GpuTiming::what);
  return found == ours.timings.end() ? 0.0 : found->median_us;
}

std::string peer_lines(const std::vector<PeerTime>& peers, const std::vector<QuotedTime>& quoted,
                       const GpuBenchmark& ours) {
  std::string text;
  for (const auto& one : peers) {
    if (one.tokens != 0 && one.tokens != ours.tokens) continue;
    const auto name = one.version.empty() ? one.peer : fmt::format("{} {}", one.peer, one.version);
    const auto what = one.pass.empty() ? name : fmt::format("{}, {}", name, one.pass);
    if (!one.why.empty())
      text += fmt::format("{:<38} not timed: {}\n", what, one.why);
    else
      text += fmt::format("{:<38} {:>10.1f} {:>10.1f}..{:<9.1f} {}{}\n", what, one.median_us, one.fastest_us,
                          one.slowest_us, one.launched,
                          ratio_words(one.median_us, our_median_us(ours, one.pass)));
  }
  if (!quoted.empty()) text += fmt::format("quoted, measured elsewhere ({}):\n", kQuotedFrom);
  for (const auto& one : quoted) {
    const auto us = one.fastest_us == one.slowest_us
                        ? fmt::format("{}", one.fastest_us)
                        : fmt::format("{} to {}", one.fastest_us, one.slowest_us);
    text += fmt::format("  {:<36} {:>10}  quoted{}\n", fmt::format("{}, {}", one.who, one.pass), us,
                        ratio_words(one.slowest_us, our_median_us(ours, one.pass)));
  }
  return text;
}

}  // namespace assay::cli
