// The manual page and the shells' completions, made from the commands as CLI11 holds them: one source.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace assay::cli {

/// The manual page of section 1, in roff's man macros: every command with its options.
std::string manual_page(const CLI::App& app, const std::string& version);

/// Scripts that complete commands, options and their values, for the shell's own folder of completions.
std::string bash_completion(const CLI::App& app);
std::string zsh_completion(const CLI::App& app);
std::string fish_completion(const CLI::App& app);

}  // namespace assay::cli
