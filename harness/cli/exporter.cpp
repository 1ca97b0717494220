#include "harness/cli/exporter.h"

#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include "build_facts.h"
#include "fixtures/fixtures.h"
#include "harness/contract/error.h"
#include "harness/host/atomic_file.h"
#include "revision.h"

namespace assay::cli {

int run_assay_golden(std::vector<std::string> words) {
  const char* chosen = std::getenv("ASSAY_PYTHON");
  const std::string python = chosen != nullptr && *chosen != '\0' ? chosen : "python3";
  const char* home = std::getenv("ASSAY_EXPORTER");
  const std::string package = home != nullptr && *home != '\0' ? home : ASSAY_SOURCE_ROOT "/golden/python";
  if (!std::filesystem::exists(package + "/assay_golden"))
    throw InputError(fmt::format(
        "the exporter is not at {}; set ASSAY_EXPORTER to the folder that holds assay_golden", package));
  words.insert(words.begin(), {python, "-m"});
  const pid_t child = fork();
  if (child < 0) throw InputError("could not start the exporter");
  if (child == 0) {
    const char* before = std::getenv("PYTHONPATH");
    setenv("PYTHONPATH", before == nullptr ? package.c_str() : (package + ":" + before).c_str(), 1);
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    throw InputError(fmt::format(
        "could not run '{}'; set ASSAY_PYTHON to a Python with torch, transformers and h5py", python));
  if (!WIFEXITED(status)) throw InputError("the exporter was stopped by a signal");
  return WEXITSTATUS(status);
}

ExitCode run_exporter(const ExporterCall& call) {
  const auto fixtures =
      std::filesystem::temp_directory_path() / fmt::format("assay-fixtures-{}.json", getpid());
  write_file_atomically(fixtures, fixtures_json());
  std::vector<std::string> words = {"assay_golden", "export", "--fixtures",       fixtures.string(),
                                    "--out",        call.out, "--implementation", call.implementation};
  for (const auto& name : call.fixtures) words.insert(words.end(), {"--fixture", name});
  if (!call.checkpoint.empty())
    words.insert(words.end(), {"--checkpoint", call.checkpoint, "--layer", std::to_string(call.layer)});
  if (!call.prompt.empty()) words.insert(words.end(), {"--prompt", call.prompt});
  int code = 0;
  try {
    code = run_assay_golden(std::move(words));
  } catch (...) {
    std::filesystem::remove(fixtures);
    throw;
  }
  std::filesystem::remove(fixtures);
  switch (code) {
    case 0: return ExitCode::Passed;
    case 2: return ExitCode::Usage;
    default: return ExitCode::CouldNotJudge;
  }
}

}  // namespace assay::cli
