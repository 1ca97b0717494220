// assay inspect: what a golden or dump holds.
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "golden/golden_file.h"
#include "harness/cli/commands.h"

namespace assay::cli {

void add_inspect(CLI::App& app, Program& program) {
  auto* command =
      app.add_subcommand("inspect", "print what an HDF5 file holds: attributes, datasets, ranges, hashes");
  auto path = std::make_shared<std::string>();
  command->add_option("FILE", *path, "golden, dump or any HDF5 file")->required();
  command->callback([path, &program] {
    program.selected = [path] {
      fmt::print("{}", inspect_file(*path));
      return ExitCode::Passed;
    };
  });
}

}  // namespace assay::cli
