#include "harness/cli/tuning_cache.h"

#include <cstdlib>
#include <fstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "golden/sha256.h"
#include "harness/cli/kernel_config.h"
#include "harness/contract/error.h"
#include "harness/host/atomic_file.h"

namespace assay::cli {
namespace {

std::optional<std::filesystem::path> folder() {
  const auto set = [](const char* name) -> const char* {
    const char* value = std::getenv(name);
    return value == nullptr || *value == '\0' ? nullptr : value;
  };
  if (const char* own = set("ASSAY_CACHE")) return own;
  if (const char* cache = set("XDG_CACHE_HOME")) return std::filesystem::path(cache) / "assay";
  if (const char* home = set("HOME")) return std::filesystem::path(home) / ".cache" / "assay";
  return std::nullopt;
}

}  // namespace

std::string tuning_key(std::string_view part, const Problem& problem, const GpuOptions& options,
                       const std::string& machine) {
  const Sizes sizes = problem.sizes();
  const auto& config = sizes.config;
  return fmt::format(
      "{}; {}; hidden {}, intermediate {}, experts {}, top_k {}, tokens {}; contract {}, permute_x {}, "
      "permute_y "
      "{}; forward {}; dX {}",
      machine, part, config.hidden_size, config.moe_intermediate_size, config.num_experts, config.top_k,
      sizes.tokens, options.contract, options.permute_x, options.permute_y,
      describe(options.kernel_config_fwd),
      options.kernel_config_bwd_dX ? describe(*options.kernel_config_bwd_dX) : "the same");
}

std::optional<std::filesystem::path> tuning_path(const std::string& key) {
  const auto where = folder();
  if (!where) return std::nullopt;
  return *where / fmt::format("autotune-{}.json", sha256_hex(key).substr(0, 16));
}

template <class Config>
std::optional<Config> load_tuning(const std::string& key) {
  const auto path = tuning_path(key);
  std::error_code ignored;
  if (!path || !std::filesystem::exists(*path, ignored)) return std::nullopt;
  std::string why;
  try {
    std::ifstream file(*path);
    const auto json = nlohmann::json::parse(file);
    if (json.at("schema") != "assay-autotune" || json.at("version") != 1)
      why = "it has another schema";
    else if (json.at("key") != key)
      why = "it was tuned for something else";
    else
      return parse_kernel_config<Config>(json.at("config").get<std::string>());
  } catch (const std::exception& error) {
    why = error.what();
  }
  fmt::print(stderr, "assay: {} is not used, the configs are measured again: {}\n", path->string(), why);
  return std::nullopt;
}

template <class Config>
void store_tuning(const std::string& key, const Tuning<Config>& tuning) {
  const auto path = tuning_path(key);
  if (!path) {
    fmt::print(stderr,
               "assay: the tuning is not kept: none of ASSAY_CACHE, XDG_CACHE_HOME and HOME is set\n");
    return;
  }
  auto trials = nlohmann::ordered_json::array();
  for (const auto& trial : tuning.trials)
    trials.push_back({{"config", describe(trial.config)},
                      {"equal_bits", trial.equal_bits},
                      {"median_us", trial.median_us},
                      {"gain_us", trial.gain_us},
                      {"spread_us", trial.spread_us}});
  const nlohmann::ordered_json json = {
      {"schema", "assay-autotune"}, {"version", 1},    {"key", key}, {"config", describe(tuning.best)},
      {"reason", tuning.reason},    {"trials", trials}};
  try {
    std::filesystem::create_directories(path->parent_path());
    write_file_atomically(*path, json.dump(2) + "\n");
  } catch (const std::exception& error) {
    fmt::print(stderr, "assay: the tuning is not kept: {}\n", error.what());
  }
}

template std::optional<KernelConfigForward> load_tuning(const std::string&);
template std::optional<KernelConfigBackwardDw> load_tuning(const std::string&);
template void store_tuning(const std::string&, const Tuning<KernelConfigForward>&);
template void store_tuning(const std::string&, const Tuning<KernelConfigBackwardDw>&);

}  // namespace assay::cli
