#include "harness/cli/plugin/plugin_row.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "harness/contract/error.h"

namespace assay::cli {
namespace {

constexpr std::size_t kLongestWord = 1024;

}  // namespace

void* load_library(const std::string& path) {
  void* library = dlopen(std::filesystem::absolute(path).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw InputError(fmt::format("{} cannot be loaded as a shared library: {}", path, dlerror()));
  return library;
}

const assay_plugin_row* row_of_library(void* library, const std::string& path) {
  const auto entry = reinterpret_cast<decltype(&assay_plugin)>(dlsym(library, "assay_plugin"));
  if (entry == nullptr)
    throw InputError(fmt::format(
        "expected {} to export assay_plugin (harness/host/plugin.h), found no such symbol", path));
  const assay_plugin_row* row = nullptr;
  try {
    row = entry();
  } catch (const std::exception& error) {
    throw CandidateError(fmt::format("assay_plugin() of {} threw an exception: {}", path, error.what()));
  } catch (...) {
    throw CandidateError(fmt::format("assay_plugin() of {} threw an exception", path));
  }
  if (row == nullptr)
    throw InputError(fmt::format("expected assay_plugin() of {} to return its row, found null", path));
  if (row->interface != ASSAY_PLUGIN_INTERFACE)
    throw InputError(fmt::format("expected {} to be built for plugin interface {}, found {}", path,
                                 ASSAY_PLUGIN_INTERFACE, row->interface));
  if (row->memory != ASSAY_HOST && row->memory != ASSAY_DEVICE)
    throw InputError(
        fmt::format("expected memory of {} to be ASSAY_HOST or ASSAY_DEVICE, found {}", path, row->memory));
  for (const char* word : {row->name, row->fields, row->contract, row->accumulators, row->ties}) {
    if (word == nullptr)
      throw InputError(fmt::format(
          "expected name, fields, contract, accumulators and ties of {} to be set, found a null", path));
    if (strnlen(word, kLongestWord) == kLongestWord)
      throw InputError(fmt::format(
          "expected name, fields, contract, accumulators and ties of {} to be shorter than {} bytes each",
          path, kLongestWord));
  }
  if (row->forward == nullptr)
    throw InputError(fmt::format("expected {} to have a forward function, found null", path));
  listed_fields(path, row->fields);
  return row;
}

std::vector<Field> listed_fields(const std::string& path, const std::string& words) {
  std::vector<Field> fields;
  std::istringstream names(words);
  for (std::string word; names >> word;) {
    const auto field = find_field(word);
    if (!field || row(*field).group != Group::Forward)  // plugin.h has no call for a backward pass
      throw InputError(
          fmt::format("expected {} to list forward fields (assay list fields), found '{}'", path, word));
    fields.push_back(*field);
  }
  if (fields.empty())
    throw InputError(fmt::format("expected {} to list the fields it writes, found none", path));
  return fields;
}

}  // namespace assay::cli
