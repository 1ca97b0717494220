// The child that runs a plug-in: the program started anew with kPluginChild as its first word. Whatever the
// plug-in does to its process, it does here.
#pragma once

#include <string_view>

namespace assay::cli {

inline constexpr std::string_view kPluginChild = "--plugin-child";

/// `assay --plugin-child PATH SOCKET`: loads the library, describes it and runs it on request, until the
/// parent goes. Returns the exit code.
int plugin_child(const char* path, const char* socket);

}  // namespace assay::cli
