// A plug-in's library and the row it exports, checked. In the child only: loading runs foreign code.
#pragma once

#include <string>
#include <vector>

#include "harness/cli/plugin/room_images.h"
#include "harness/host/plugin.h"

namespace assay::cli {

/// Loads the library. It stays loaded: it may have threads, or a CUDA context. Throws InputError.
void* load_library(const std::string& path);

/// The configs it lists; none where it exports no such list. Throws InputError, CandidateError when it
/// throws.
std::vector<std::string> configs_of_library(void* library, const std::string& path);

/// Calls assay_plugin_select(), which may refuse. Throws InputError where the config is none of those listed
/// or does not run here, CandidateError when the choice fails.
void select_config(void* library, const std::string& path, const std::string& config);

/// Calls assay_plugin() and checks what it returns; a row of interface 1 has no gradients and no backward.
/// Throws InputError, CandidateError when it throws.
assay_plugin_row row_of_library(void* library, const std::string& path);

/// The fields of forward that words name, separated by blanks. Throws InputError.
std::vector<PlacedField> listed_results(const std::string& path, const std::string& words);
/// The fields of backward, ":float32" behind those that are not bf16. Throws InputError.
std::vector<PlacedField> listed_gradients(const std::string& path, const std::string& words);

}  // namespace assay::cli
