#include "harness/cli/kernel_config.h"

#include <charconv>

#include <fmt/format.h>

#include "gpu/autotune.h"
#include "harness/cli/tuning_cache.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

template <class Value>
struct Key {
  std::string_view name;
  Value KernelConfigForward::* member;
};
constexpr Key<std::string> kWords[] = {{"variant", &KernelConfigForward::variant},
                                       {"tiles", &KernelConfigForward::tiles}};
constexpr Key<int> kNumbers[] = {{"pipeline_depth_gate_up", &KernelConfigForward::pipeline_depth_gate_up},
                                 {"pipeline_depth_down", &KernelConfigForward::pipeline_depth_down},
                                 {"raster_rows", &KernelConfigForward::raster_rows},
                                 {"persistent_blocks", &KernelConfigForward::persistent_blocks},
                                 {"cluster", &KernelConfigForward::cluster}};

void set(KernelConfigForward& config, std::string_view key, std::string_view value) {
  std::string valid;
  for (const auto& one : kWords) {
    if (one.name == key) {
      config.*one.member = value;
      return;
    }
    valid += fmt::format("{}, ", one.name);
  }
  for (const auto& one : kNumbers) {
    valid += fmt::format("{}, ", one.name);
    if (one.name != key) continue;
    const auto end = value.data() + value.size();
    const auto parsed = std::from_chars(value.data(), end, config.*one.member);
    if (parsed.ec != std::errc{} || parsed.ptr != end)
      throw UsageError(fmt::format("--kernel-config: expected an integer for {}, found '{}'", key, value));
    return;
  }
  throw UsageError(
      fmt::format("--kernel-config: unknown key '{}'; valid: {}or the word {}", key, valid, kAutotune));
}

}  // namespace

KernelConfigForward parse_kernel_config(std::string_view text) {
  KernelConfigForward config;
  while (!text.empty()) {
    const auto comma = text.find(',');
    const auto pair = text.substr(0, comma);
    const auto equals = pair.find('=');
    if (equals == std::string_view::npos)
      throw UsageError(
          fmt::format("--kernel-config: expected key=value,... or {}, found '{}'", kAutotune, pair));
    set(config, pair.substr(0, equals), pair.substr(equals + 1));
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
  }
  if (const auto reason = invalid(config)) throw UsageError(fmt::format("--kernel-config: {}", *reason));
  return config;
}

KernelConfigForward kernel_config(std::string_view text, const Problem& problem, const GpuOptions& options) {
  if (text != kAutotune) return parse_kernel_config(text);
  const std::string key = tuning_key(problem, options, tuning_machine());
  if (const auto cached = load_tuning(key)) return *cached;
  const Tuning tuning = autotune_gpu_fused(problem, options);
  fmt::print(stderr, "assay: autotune, {} configs: {}\n", tuning.trials.size(), tuning.reason);
  store_tuning(key, tuning);
  return tuning.best;
}

}  // namespace assay::cli
