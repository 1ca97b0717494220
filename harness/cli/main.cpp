// assay: commands, and one place where errors become exit codes.
#include <fcntl.h>
#include <fmt/format.h>
#include <malloc.h>
#include <omp.h>
#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <latch>
#include <system_error>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>

#include "harness/cli/command_words.h"
#include "harness/cli/commands.h"
#include "harness/cli/environment.h"
#include "harness/cli/plugin/plugin_child.h"
#include "harness/contract/error.h"
#include "harness/contract/printable.h"

namespace {

constexpr const char* kAbout =
    "Proves, field by field, that a kernel for the Qwen3 MoE layer computes what HuggingFace computes;\n"
    "names the first stage that does not, how far off it is and why.\n\n"
    "  assay verify --golden golden/data/*.h5 --html report.html     judge recorded HuggingFace runs\n"
    "  assay verify --golden G.h5 --pipeline dump:mine.h5            judge your kernel's dump on a golden's "
    "inputs\n"
    "  assay verify --fixture tiny --pipeline plugin:./libmine.so    judge your layer in a library "
    "(harness/host/plugin.h)\n"
    "  assay regress --baseline before.h5 --candidate after.h5       what a kernel change changed\n"
    "  assay diff one.h5 other.h5                                    where two candidates part, and who is "
    "nearer to float64\n"
    "  assay golden make --predicted --fixture tiny                  the golden an H200 would give, without "
    "a GPU\n";

constexpr const char* kExitCodes =
    "Exit codes: 0 all passed, 1 a comparison failed, 2 usage error, 3 could not judge (file, schema, "
    "device),\n"
    "4 suspect, unstable or mistrusted only, 77 nothing was compared.";

constexpr const char* kRefusal = "assay: {}\nRun '{} --help' for what is valid.\n";

int code(assay::ExitCode exit_code) { return static_cast<int>(exit_code); }

/// Output that went nowhere (a full disk, a closed stream) must not end as a success.
void require_stdout() {
  if (!std::cout.flush() || std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    throw assay::InputError("could not write to stdout");
}

void refuse(const std::string& why, const CLI::App& app) {
  assay::cli::say(fmt::format(kRefusal, assay::printable(why, true), assay::cli::command_words(app)));
}

/// A file that is opened must not get the number of a stream that the caller closed.
void open_closed_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (fcntl(stream, F_GETFD) < 0) {
      // Reading from stdout's number keeps writing to it an error.
      [[maybe_unused]] const int opened = open("/dev/null", stream == STDERR_FILENO ? O_WRONLY : O_RDONLY);
    }
}

/// OpenMP ends the program with exit code 1 where it gets no thread; that is not a failed comparison.
bool ended_by_main = false;
void end_otherwise() {
  if (!ended_by_main) _exit(code(assay::ExitCode::CouldNotJudge));
}

/// The library of OpenMP, told nothing before it is loaded, lets waiting threads spin: beside other work a
/// search of causes took 29 s that takes 2 where they sleep. So the program starts itself anew and tells it;
/// where it cannot, it spins.
void wait_without_spinning(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  if (setenv("OMP_WAIT_POLICY", "passive", 0) == 0) execv("/proc/self/exe", argv);
}

/// Blocks of a field are let go and asked for again hundreds of times: what glibc gives back at once comes
/// anew from the kernel, which zeroes it (a tenth of the time of a golden of full width).
void keep_freed_memory() {
  constexpr int kLargestFromHeap = 32 << 20;  // glibc's own limit
  constexpr int kKept = 128 << 20;
  mallopt(M_MMAP_THRESHOLD, kLargestFromHeap);
  mallopt(M_TRIM_THRESHOLD, kKept);
}

/// As many threads as there are to be had.
void use_threads_there_are() {
  std::vector<std::thread> started;
  std::latch all_tried(1);
  try {
    for (int i = 1; i < omp_get_max_threads(); ++i) started.emplace_back([&] { all_tried.wait(); });
  } catch (const std::system_error&) {
    omp_set_num_threads(1 + static_cast<int>(started.size()));
  }
  all_tried.count_down();
  for (auto& thread : started) thread.join();
}

int run(int argc, char** argv);

}  // namespace

int main(int argc, char** argv) {
  wait_without_spinning(argv);
  open_closed_streams();
  keep_freed_memory();
  if ((argc == 4 || argc == 5) && argv[1] == assay::cli::kPluginChild)
    return assay::cli::plugin_child(argv[2], argc == 5 ? argv[3] : nullptr, argv[argc - 1]);
  std::atexit(end_otherwise);
  const int result = run(argc, argv);
  ended_by_main = true;
  return result;
}

namespace {

int run(int argc, char** argv) {
  CLI::App app(kAbout, "assay");
  app.footer(kExitCodes);
  app.require_subcommand(1);
  app.set_version_flag("--version", assay::cli::version());
  app.get_formatter()->column_width(34);
  assay::cli::Program program;
  for (int i = 0; i < argc; ++i)
    program.command_line += fmt::format("{}{}", i == 0 ? "" : " ", i == 0 ? "assay" : argv[i]);
  assay::cli::add_verify(app, program);
  assay::cli::add_regress(app, program);
  assay::cli::add_diff(app, program);
  assay::cli::add_invariance(app, program);
  assay::cli::add_merge(app, program);
  assay::cli::add_golden(app, program);
  assay::cli::add_report(app, program);
  assay::cli::add_explain(app, program);
  assay::cli::add_minimize(app, program);
  assay::cli::add_mutate(app, program);
  assay::cli::add_inspect(app, program);
  assay::cli::add_list(app, program);
  assay::cli::add_bench(app, program);
  assay::cli::add_pages(app, program);
  try {
    try {
      app.parse(argc, argv);
    } catch (const CLI::Success& help) {
      app.exit(help);
      require_stdout();
      return code(assay::ExitCode::Passed);
    }
    use_threads_there_are();
    const auto result = program.selected();
    require_stdout();
    return code(result);
  } catch (const CLI::RequiredError& error) {
    const bool command = std::string_view(error.what()).find("subcommand") != std::string_view::npos;
    refuse(command ? assay::cli::missing_command(app) : error.what(), app);
    if (argc == 1) assay::cli::say(fmt::format("\n{}", kAbout));
    return code(assay::ExitCode::Usage);
  } catch (const CLI::ExtrasError&) {
    refuse(assay::cli::unexpected_words(app), app);
    return code(assay::ExitCode::Usage);
  } catch (const CLI::ParseError& error) {
    refuse(error.what(), app);
    return code(assay::ExitCode::Usage);
  } catch (const assay::UsageError& error) {
    assay::cli::say(fmt::format("assay: {}\n", assay::printable(error.what(), true)));
    return code(assay::ExitCode::Usage);
  } catch (const std::bad_alloc&) {
    assay::cli::say("assay: out of memory; fewer tokens or a smaller fixture would fit\n");
    return code(assay::ExitCode::CouldNotJudge);
  } catch (const std::filesystem::filesystem_error& error) {
    assay::cli::say(fmt::format("assay: {}\n", assay::printable(error.what(), true)));
    return code(assay::ExitCode::CouldNotJudge);
  } catch (const std::system_error& error) {
    // fmt reports a stream that takes no more; every file of ours has its own sentence.
    assay::cli::say(fmt::format("assay: could not write to stdout: {}\n", error.code().message()));
    return code(assay::ExitCode::CouldNotJudge);
  } catch (const assay::CandidateError& error) {
    assay::cli::say(fmt::format("assay: {}\n", assay::printable(error.what(), true)));
    return code(assay::ExitCode::Failed);
  } catch (const std::exception& error) {
    assay::cli::say(fmt::format("assay: {}\n", assay::printable(error.what(), true)));
    return code(assay::ExitCode::CouldNotJudge);
  }
}

}  // namespace
