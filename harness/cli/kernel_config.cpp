#include "harness/cli/kernel_config.h"

#include <algorithm>
#include <charconv>
#include <span>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "gpu/autotune.h"
#include "harness/cli/tuning_cache.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

template <class Config, class Value>
struct Key {
  std::string_view name;
  Value Config::* member;
};
template <class Config>
struct Keys {
  std::span<const Key<Config, std::string>> words;
  std::span<const Key<Config, int>> numbers;
};

using Forward = KernelConfigForward;
constexpr Key<Forward, std::string> kWords[] = {{"variant", &Forward::variant}, {"tiles", &Forward::tiles}};
constexpr Key<Forward, int> kNumbers[] = {{"pipeline_depth_gate_up", &Forward::pipeline_depth_gate_up},
                                          {"pipeline_depth_down", &Forward::pipeline_depth_down},
                                          {"raster_rows", &Forward::raster_rows},
                                          {"persistent_blocks", &Forward::persistent_blocks},
                                          {"cluster", &Forward::cluster}};
Keys<Forward> keys(const Forward&) { return {kWords, kNumbers}; }

using Dw = KernelConfigBackwardDw;
constexpr Key<Dw, std::string> kDwWords[] = {{"variant", &Dw::variant}, {"tile_order", &Dw::tile_order}};
constexpr Key<Dw, int> kDwNumbers[] = {{"pipeline_depth", &Dw::pipeline_depth},
                                       {"pipeline_depth_gathered", &Dw::pipeline_depth_gathered},
                                       {"persistent_blocks", &Dw::persistent_blocks}};
Keys<Dw> keys(const Dw&) { return {kDwWords, kDwNumbers}; }

template <class Config>
void set(Config& config, std::string_view key, std::string_view value, std::string_view option) {
  std::string valid;
  for (const auto& one : keys(config).words) {
    if (one.name == key) {
      config.*one.member = value;
      return;
    }
    valid += fmt::format("{}, ", one.name);
  }
  for (const auto& one : keys(config).numbers) {
    valid += fmt::format("{}, ", one.name);
    if (one.name != key) continue;
    const auto end = value.data() + value.size();
    const auto parsed = std::from_chars(value.data(), end, config.*one.member);
    if (parsed.ec != std::errc{} || parsed.ptr != end)
      throw UsageError(fmt::format("{}: expected an integer for {}, found '{}'", option, key, value));
    return;
  }
  throw UsageError(
      fmt::format("{}: unknown key '{}'; valid: {}or the word {}", option, key, valid, kAutotune));
}

template <class Config>
Config parse(std::string_view text, std::string_view option) {
  Config config;
  while (!text.empty()) {
    const auto comma = text.find(',');
    const auto pair = text.substr(0, comma);
    const auto equals = pair.find('=');
    if (equals == std::string_view::npos)
      throw UsageError(fmt::format("{}: expected key=value,... or {}, found '{}'", option, kAutotune, pair));
    set(config, pair.substr(0, equals), pair.substr(equals + 1), option);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
  }
  if (const auto reason = invalid(config)) throw UsageError(fmt::format("{}: {}", option, *reason));
  return config;
}

/// The config kept for this problem, or the best of those that are tried now.
template <class Config>
Config tuned(std::string_view part, Tuning<Config> (*autotune)(const Problem&, const GpuOptions&),
             const Problem& problem, const GpuOptions& options) {
  const std::string key = tuning_key(part, problem, options, tuning_machine());
  if (const auto cached = load_tuning<Config>(key)) return *cached;
  const Tuning<Config> tuning = autotune(problem, options);
  fmt::print(stderr, "assay: autotune of {}, {} configs: {}\n", part, tuning.trials.size(), tuning.reason);
  store_tuning(key, tuning);
  return tuning.best;
}

constexpr std::string_view kOfWeights = "dW:";

/// The members in which a config is not `standard`, or its first where there are none.
template <class Config>
std::string other_members(const Config& config, const Config& standard) {
  const auto members = [](const std::string& all) {
    std::vector<std::string> each;
    std::istringstream text(all);
    for (std::string member; std::getline(text, member, ',');) each.push_back(member);
    return each;
  };
  auto of_config = members(describe(config));
  const auto of_standard = members(describe(standard));
  const auto first = of_config.front();
  std::erase_if(of_config, [&](const std::string& member) {
    return std::ranges::find(of_standard, member) != of_standard.end();
  });
  return of_config.empty() ? first : fmt::format("{}", fmt::join(of_config, ","));
}

}  // namespace

KernelConfigTexts kernel_config_of_name(std::string_view config) {
  KernelConfigTexts texts;
  if (config.starts_with(kOfWeights))
    texts.backward_dW = config.substr(kOfWeights.size());
  else
    texts.forward = config;
  check(texts);
  return texts;
}

std::vector<std::string> kernel_config_names(bool backward) {
  // Of one token there is every config: one that other sizes do not have says so there.
  Sizes sizes;
  sizes.tokens = 1;
  std::vector<std::string> names;
  for (const auto& config : tuning_space(sizes)) names.push_back(other_members(config, {}));
  if (!backward) return names;
  const auto of_weights = tuning_space_dW();
  for (const auto& config : std::span(of_weights).subspan(1))  // the first is the default: it ran above
    names.push_back(fmt::format("{}{}", kOfWeights, other_members(config, {})));
  return names;
}

template <>
KernelConfigForward parse_kernel_config(std::string_view text, std::string_view option) {
  return parse<KernelConfigForward>(text, option);
}
template <>
KernelConfigBackwardDw parse_kernel_config(std::string_view text, std::string_view option) {
  return parse<KernelConfigBackwardDw>(text, option);
}

void check(const KernelConfigTexts& texts) {
  if (texts.forward != kAutotune) parse_kernel_config(texts.forward);
  if (texts.backward_dX != kAutotune) parse_kernel_config(texts.backward_dX, kOptionDx);
  if (texts.backward_dW != kAutotune)
    parse_kernel_config<KernelConfigBackwardDw>(texts.backward_dW, kOptionDw);
}

void set_kernel_configs(GpuOptions& options, const KernelConfigTexts& texts, const Problem& problem) {
  options.kernel_config_fwd = {};
  options.kernel_config_bwd_dX.reset();
  options.kernel_config_bwd_dW = {};
  options.kernel_config_fwd = texts.forward == kAutotune
                                  ? tuned("the forward pass", autotune_gpu_fused, problem, options)
                                  : parse_kernel_config(texts.forward);
  if (problem.output_gradient.size() == 0) return;
  if (texts.backward_dX == kAutotune)
    options.kernel_config_bwd_dX = tuned("gradients of rows", autotune_gpu_fused_dX, problem, options);
  else if (!texts.backward_dX.empty())
    options.kernel_config_bwd_dX = parse_kernel_config(texts.backward_dX, kOptionDx);
  options.kernel_config_bwd_dW =
      texts.backward_dW == kAutotune
          ? tuned("gradients of weights", autotune_gpu_fused_dW, problem, options)
          : parse_kernel_config<KernelConfigBackwardDw>(texts.backward_dW, kOptionDw);
}

}  // namespace assay::cli
