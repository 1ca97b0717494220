// A plug-in's library and the row it exports, checked. In the child only: loading runs foreign code.
#pragma once

#include <string>
#include <vector>

#include "harness/contract/field.h"
#include "harness/host/plugin.h"

namespace assay::cli {

/// Loads the library. It stays loaded: it may have threads, or a CUDA context. Throws InputError.
void* load_library(const std::string& path);

/// Calls assay_plugin() and checks what it returns. Throws InputError, CandidateError when it throws.
const assay_plugin_row* row_of_library(void* library, const std::string& path);

/// The fields that words name, separated by blanks. Throws InputError.
std::vector<Field> listed_fields(const std::string& path, const std::string& words);

}  // namespace assay::cli
