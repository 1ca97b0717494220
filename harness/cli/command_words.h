// What to say of a command line that cannot be read.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace assay::cli {

/// The command as far as it was understood: "assay golden check".
std::string command_words(const CLI::App& app);

/// A name where a command must stand, and the valid ones: CLI11 only says that one is missing.
std::string missing_command(const CLI::App& app);

/// The first word that no option takes, and what was probably meant.
std::string unexpected_words(const CLI::App& app);

}  // namespace assay::cli
