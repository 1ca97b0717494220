#include "harness/cli/plugin/plugin_pipeline.h"

#include <fmt/format.h>
#include <algorithm>
#include <map>
#include <memory>

#include "harness/cli/plugin/placed_problem.h"
#include "harness/cli/plugin/plugin_process.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

// Beside a room of the host nothing is mapped; on a device other allocations follow.
constexpr std::int64_t kGuardOnHost = 4096;
constexpr std::int64_t kGuardOnDevice = 256 << 10;

/// One process per plug-in, ended with the program.
PluginProcess& process_of(const std::string& path) {
  static std::map<std::string, std::unique_ptr<PluginProcess>> all;
  auto& one = all[path];
  if (!one) one = std::make_unique<PluginProcess>(path);
  return *one;
}

/// The rows of input_hidden_states [T, H], last first.
std::vector<Bf16> reversed_tokens(const Problem& problem) {
  const auto input = problem.input.as<Bf16>();
  std::vector<Bf16> reversed(input.begin(), input.end());
  const auto hidden = static_cast<std::ptrdiff_t>(problem.config.hidden_size);
  for (std::ptrdiff_t t = 0, tokens = problem.sizes().tokens; t < tokens; ++t)
    std::copy_n(input.begin() + (tokens - 1 - t) * hidden, hidden, reversed.begin() + t * hidden);
  return reversed;
}

/// The calls on one problem.
class PluginRuns {
 public:
  PluginRuns(const std::string& path, PluginProcess& process, const Problem& problem, double time_limit)
      : path_(path),
        process_(process),
        limit_(time_limit),
        row_(process.row(time_limit)),
        placed_(problem, row_.fields, row_.device ? kGuardOnDevice : kGuardOnHost) {
    process_.place(placed_, time_limit);
  }

  FieldSet run(const std::string& when, std::span<const Bf16> input) {
    placed_.prepare(input);
    process_.run(placed_, limit_, when);
    if (const std::string sentence = placed_.broken_results_guard(); !sentence.empty())
      throw CandidateError(fmt::format("{}: {}", path_, sentence));
    return placed_.results();
  }

  void verify_inputs() {
    std::optional<wire::Reply> seen;
    if (row_.device) seen = process_.fingerprints(placed_, limit_);
    if (const std::string sentence = placed_.changed_input(seen ? &*seen : nullptr); !sentence.empty())
      throw CandidateError(fmt::format("{}: {}", path_, sentence));
  }

  const PluginRow& row() const { return row_; }

 private:
  const std::string& path_;
  PluginProcess& process_;
  double limit_;
  const PluginRow& row_;
  PlacedProblem placed_;
};

/// What a run on the tokens in reverse showed.
std::string order_remark(const ReversedDifferences& reversed, std::size_t fields) {
  if (!reversed.differing.empty())
    return fmt::format(
        "on its tokens in reverse, put back into their order, {} have other bits: the results of a token "
        "depend on "
        "where it stands among the others (information: no order is promised)",
        in_words(reversed.differing));
  return fmt::format(
      "on its tokens in reverse, put back into their order, {} the same bits",
      reversed.compared.size() == fields
          ? std::string("every field has")
          : fmt::format("the {} of {} fields whose rows can be told have", reversed.compared.size(), fields));
}

std::vector<PluginRun> runs_of(const std::string& path, PluginProcess& process, const Problem& problem,
                               double time_limit) {
  PluginRuns runs(path, process, problem, time_limit);
  const auto input = problem.input.as<Bf16>();
  const FieldSet first = runs.run(fmt::format("in its first run on {}", problem.name), input);
  const FieldSet reversed = runs.run(
      fmt::format("on {} with its tokens in reverse, after one run", problem.name), reversed_tokens(problem));
  const FieldSet second = runs.run(fmt::format("in its second run on {}", problem.name), input);
  runs.verify_inputs();
  const auto& fields = runs.row().fields;
  const auto unstable = differences(fields, first, second);
  std::vector<PluginRun> all(unstable.empty() ? 1 : 2, {runs.row().candidate, unstable, {}});
  all.front().candidate.fields = second;
  if (unstable.empty()) {
    all.front().candidate.remarks.push_back(fmt::format(
        "ran on the problem twice: the same bytes, and nothing written beside the results; {}",
        order_remark(reversed_differences(fields, second, reversed, problem.sizes()), fields.size())));
    return all;
  }
  all.back().candidate.fields = first;
  for (auto& one : all)
    one.candidate.remarks.push_back(
        fmt::format("two runs on the problem differ (in between, its tokens in reverse): {}. State left "
                    "over, a read of what "
                    "was not written, or sums in an order that changes; this is the {} run, the other is "
                    "judged beside it",
                    in_words(unstable), &one == &all.front() ? "second" : "first"));
  return all;
}

/// Runs `work` on the plug-in's process, and leaves that as it may be left.
template <class Work>
auto in_its_process(const std::string& path, Work work) {
  PluginProcess& process = process_of(path);
  try {
    auto result = work(process);
    process.rest();
    return result;
  } catch (const CandidateError&) {
    process.end();  // whatever crossed a rule may have harmed its own process
    throw;
  } catch (const InputError&) {
    process.rest();
    throw;
  }
}

}  // namespace

void check_plugin(const std::string& path, double time_limit) {
  try {
    process_of(path).row(time_limit);
  } catch (const CandidateError&) {
    // It crashed, hung or threw: the verdict of every case of it.
  }
}

std::vector<PluginRun> run_plugin(const std::string& path, const Problem& problem, double time_limit) {
  return in_its_process(path,
                        [&](PluginProcess& process) { return runs_of(path, process, problem, time_limit); });
}

Candidate run_plugin_once(const std::string& path, const Problem& problem, double time_limit) {
  return in_its_process(path, [&](PluginProcess& process) {
    PluginRuns runs(path, process, problem, time_limit);
    Candidate candidate = runs.row().candidate;
    candidate.fields = runs.run(fmt::format("on {}", problem.name), problem.input.as<Bf16>());
    runs.verify_inputs();
    return candidate;
  });
}

}  // namespace assay::cli
