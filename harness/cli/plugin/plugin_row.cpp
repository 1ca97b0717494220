#include "harness/cli/plugin/plugin_row.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "harness/contract/error.h"

namespace assay::cli {
namespace {

constexpr std::size_t kLongestWord = 1024;
constexpr std::size_t kLongestConfigs = 16 << 10;
constexpr std::string_view kConfigSigns = "_.,=:+-/";  // no quote, no blank, no '#': a name is one word
constexpr std::string_view kFloat32 = ":float32";

/// Interface 1 ended before `gradients`: nothing behind that is read of its rows.
constexpr std::size_t kBytesOfInterface1 = offsetof(assay_plugin_row, gradients);

bool in_config(char sign) {
  return (sign >= '0' && sign <= '9') || (sign >= 'a' && sign <= 'z') || (sign >= 'A' && sign <= 'Z') ||
         kConfigSigns.find(sign) != std::string_view::npos;
}

void check_words(const assay_plugin_row& row, const std::string& path) {
  for (const char* word : {row.name, row.fields, row.contract, row.accumulators, row.ties}) {
    if (word == nullptr)
      throw InputError(fmt::format(
          "expected name, fields, contract, accumulators and ties of {} to be set, found a null", path));
    if (strnlen(word, kLongestWord) == kLongestWord)
      throw InputError(fmt::format(
          "expected name, fields, contract, accumulators and ties of {} to be shorter than {} bytes each",
          path, kLongestWord));
  }
  if (row.gradients != nullptr && strnlen(row.gradients, kLongestWord) == kLongestWord)
    throw InputError(fmt::format("expected gradients of {} to be shorter than {} bytes", path, kLongestWord));
}

std::vector<PlacedField> listed(const std::string& path, const std::string& words, Group group) {
  std::vector<PlacedField> fields;
  std::istringstream names(words);
  for (std::string word; names >> word;) {
    const bool float32 = group == Group::Backward && word.ends_with(kFloat32);
    const auto field = find_field(word.substr(0, word.size() - (float32 ? kFloat32.size() : 0)));
    if (!field || row(*field).group != group)
      throw InputError(fmt::format("expected {} to list {} fields (assay list fields), found '{}'", path,
                                   name(group), word));
    if (std::ranges::find(fields, *field, &PlacedField::field) != fields.end())
      throw InputError(fmt::format("expected {} to list {} once, found it twice", path, name(*field)));
    fields.push_back({*field, float32 ? DType::Float32 : row(*field).dtype});
  }
  return fields;
}

/// The exported function of that name, or null.
template <class Function>
Function* exported(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

/// Calls a function of the library. Throws CandidateError when that throws.
template <class Call>
auto called(const std::string& path, std::string_view function, Call call) {
  try {
    return call();
  } catch (const std::exception& error) {
    throw CandidateError(fmt::format("{} of {} threw an exception: {}", function, path, error.what()));
  } catch (...) {
    throw CandidateError(fmt::format("{} of {} threw an exception", function, path));
  }
}

}  // namespace

void* load_library(const std::string& path) {
  void* library = dlopen(std::filesystem::absolute(path).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw InputError(fmt::format("{} cannot be loaded as a shared library: {}", path, dlerror()));
  return library;
}

std::vector<std::string> configs_of_library(void* library, const std::string& path) {
  const auto list = exported<decltype(assay_plugin_configs)>(library, "assay_plugin_configs");
  if (list == nullptr) return {};
  if (exported<decltype(assay_plugin_select)>(library, "assay_plugin_select") == nullptr)
    throw InputError(fmt::format(
        "expected {} to export assay_plugin_select beside assay_plugin_configs, found no such symbol", path));
  const char* words = called(path, "assay_plugin_configs()", list);
  if (words == nullptr || strnlen(words, kLongestConfigs) == kLongestConfigs)
    throw InputError(
        fmt::format("expected assay_plugin_configs() of {} to return less than {} bytes, found {}", path,
                    kLongestConfigs, words == nullptr ? "null" : "more"));
  std::vector<std::string> configs;
  std::istringstream names(words);
  for (std::string config; names >> config;) {
    if (const auto wrong = std::ranges::find_if_not(config, in_config); wrong != config.end())
      throw InputError(
          fmt::format("expected a config of {} to be of letters, digits and {}, found the sign {} in {}",
                      path, kConfigSigns, *wrong, config));
    if (std::ranges::find(configs, config) != configs.end())
      throw InputError(fmt::format("expected {} to list its config {} once, found it twice", path, config));
    configs.push_back(std::move(config));
  }
  if (configs.empty())
    throw InputError(
        fmt::format("expected assay_plugin_configs() of {} to list its configs, found none", path));
  return configs;
}

void select_config(void* library, const std::string& path, const std::string& config) {
  const auto configs = configs_of_library(library, path);
  if (configs.empty())
    throw InputError(fmt::format(
        "expected {} to export assay_plugin_configs (harness/host/plugin.h), for '#{}' asks for a config; "
        "found no such symbol",
        path, config));
  if (std::ranges::find(configs, config) == configs.end())
    throw InputError(
        fmt::format("expected '{}' to be a config of {}; valid: {}", config, path, fmt::join(configs, ", ")));
  std::array<char, 1024> why{};
  const auto status = called(path, "assay_plugin_select()", [&] {
    return exported<decltype(assay_plugin_select)>(library, "assay_plugin_select")(
        config.c_str(), why.data(), static_cast<std::int64_t>(why.size()));
  });
  why.back() = '\0';
  if (status == ASSAY_OK) return;
  const std::string words = why[0] == '\0' ? fmt::format("status {}, no sentence", status) : why.data();
  if (status == ASSAY_UNSUPPORTED)
    throw InputError(fmt::format("{} does not support its config {} here: {}", path, config, words));
  throw CandidateError(fmt::format("{} failed to select its config {}: {}", path, config, words));
}

assay_plugin_row row_of_library(void* library, const std::string& path) {
  const auto entry = exported<decltype(assay_plugin)>(library, "assay_plugin");
  if (entry == nullptr)
    throw InputError(fmt::format(
        "expected {} to export assay_plugin (harness/host/plugin.h), found no such symbol", path));
  const assay_plugin_row* found = called(path, "assay_plugin()", entry);
  if (found == nullptr)
    throw InputError(fmt::format("expected assay_plugin() of {} to return its row, found null", path));
  if (found->interface != 1 && found->interface != ASSAY_PLUGIN_INTERFACE)
    throw InputError(fmt::format("expected {} to be built for plugin interface 1 or {}, found {}", path,
                                 ASSAY_PLUGIN_INTERFACE, found->interface));
  assay_plugin_row row{};
  std::memcpy(&row, found, found->interface == 1 ? kBytesOfInterface1 : sizeof(row));
  if (row.memory != ASSAY_HOST && row.memory != ASSAY_DEVICE)
    throw InputError(
        fmt::format("expected memory of {} to be ASSAY_HOST or ASSAY_DEVICE, found {}", path, row.memory));
  check_words(row, path);
  if (row.forward == nullptr)
    throw InputError(fmt::format("expected {} to have a forward function, found null", path));
  if ((row.backward == nullptr) != (row.gradients == nullptr))
    throw InputError(
        fmt::format("expected {} to have a backward function and gradients, or neither, found {} null", path,
                    row.backward == nullptr ? "backward" : "gradients"));
  listed_results(path, row.fields);
  if (row.gradients != nullptr) listed_gradients(path, row.gradients);
  return row;
}

std::vector<PlacedField> listed_results(const std::string& path, const std::string& words) {
  auto fields = listed(path, words, Group::Forward);
  if (fields.empty())
    throw InputError(fmt::format("expected {} to list the fields it writes, found none", path));
  return fields;
}

std::vector<PlacedField> listed_gradients(const std::string& path, const std::string& words) {
  auto fields = listed(path, words, Group::Backward);
  if (fields.empty())
    throw InputError(fmt::format("expected {} to list the gradients it writes, found none", path));
  return fields;
}

}  // namespace assay::cli
