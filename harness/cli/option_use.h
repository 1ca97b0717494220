// Options that are given although nothing of what is asked for reads them: a wrong command line, and no
// silence.
#pragma once

#include <initializer_list>
#include <string_view>

namespace CLI {
class App;
}

namespace assay::cli {

struct OptionUse {
  std::string_view option;      // "--tokens", or a word's name: "FAULT"
  bool read;                    // by what else is asked for
  std::string_view belongs_to;  // "--checkpoint DIR without --input FILE"
};

/// Throws UsageError for the first option that is on the command line and is not read.
void require_read(const CLI::App& command, std::initializer_list<OptionUse> options);

}  // namespace assay::cli
