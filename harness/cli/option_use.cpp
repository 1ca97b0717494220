#include "harness/cli/option_use.h"

#include <string>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "harness/contract/error.h"

namespace assay::cli {

void require_read(const CLI::App& command, std::initializer_list<OptionUse> options) {
  for (const OptionUse& one : options)
    if (!one.read && command.count(std::string(one.option)) > 0)
      throw UsageError(fmt::format("{} belongs to {}", one.option, one.belongs_to));
}

}  // namespace assay::cli
