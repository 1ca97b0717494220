#include "harness/cli/plugin/plugin_row.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "harness/contract/error.h"

namespace assay::cli {
namespace {

constexpr std::size_t kLongestWord = 1024;
constexpr std::string_view kFloat32 = ":float32";

/// Interface 1 ended before `gradients`: nothing behind that is read of its rows.
constexpr std::size_t kBytesOfInterface1 = offsetof(assay_plugin_row, gradients);

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

}  // namespace

void* load_library(const std::string& path) {
  void* library = dlopen(std::filesystem::absolute(path).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw InputError(fmt::format("{} cannot be loaded as a shared library: {}", path, dlerror()));
  return library;
}

assay_plugin_row row_of_library(void* library, const std::string& path) {
  const auto entry = reinterpret_cast<decltype(&assay_plugin)>(dlsym(library, "assay_plugin"));
  if (entry == nullptr)
    throw InputError(fmt::format(
        "expected {} to export assay_plugin (harness/host/plugin.h), found no such symbol", path));
  const assay_plugin_row* found = nullptr;
  try {
    found = entry();
  } catch (const std::exception& error) {
    throw CandidateError(fmt::format("assay_plugin() of {} threw an exception: {}", path, error.what()));
  } catch (...) {
    throw CandidateError(fmt::format("assay_plugin() of {} threw an exception", path));
  }
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
