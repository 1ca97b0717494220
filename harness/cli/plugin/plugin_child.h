// The child that runs a plug-in: the program started anew with kPluginChild as its first word. Whatever the
// plug-in does to its process, it does here.
#pragma once

#include <string_view>

namespace assay::cli {

inline constexpr std::string_view kPluginChild = "--plugin-child";
inline constexpr std::string_view kInAssayPlugin = "in assay_plugin()";  // a step of loading

/// `assay --plugin-child PATH [CONFIG] SOCKET`: loads the library, selects the config if there is one,
/// describes the library and runs it on request, until the parent goes. No config is null. Returns the exit
/// code.
int plugin_child(const char* path, const char* config, const char* socket);

}  // namespace assay::cli
