#include "harness/cli/plugin/plugin_pipeline.h"

#include <fmt/format.h>
#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>

#include "harness/cli/plugin/plugin_runs.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

/// One process per plug-in, ended with the program. Of a library's configs one has a process at a time:
/// dozens of them, each with what it keeps on a device, would take its memory.
PluginProcess& process_of(const std::string& path) {
  static std::map<std::string, std::unique_ptr<PluginProcess>> all;
  auto& one = all[path];
  if (!one) one = std::make_unique<PluginProcess>(path);
  for (auto& [name, other] : all)
    if (name != path && PluginName(name).path == PluginName(path).path) other->end();
  return *one;
}

/// Rows [T, H], last first; nothing of nothing.
std::vector<Bf16> reversed_rows(std::span<const Bf16> rows, std::int64_t hidden) {
  std::vector<Bf16> reversed;
  reversed.reserve(rows.size());
  for (std::size_t end = rows.size(); end > 0; end -= static_cast<std::size_t>(hidden)) {
    const auto row = rows.first(end).last(static_cast<std::size_t>(hidden));
    reversed.insert(reversed.end(), row.begin(), row.end());
  }
  return reversed;
}

bool has_output_gradient(const Problem& problem) { return problem.output_gradient.shape().size() == 2; }

/// The gradients to ask for: of those that the plug-in lists, none for forward alone.
std::vector<PlacedField> wanted_gradients(const PluginRow& row, const Problem& problem,
                                          const PluginOptions& options) {
  std::vector<PlacedField> wanted;
  if (!options.backward || !has_output_gradient(problem)) return wanted;
  constexpr std::array kOfWeights = {Field::d_down_proj, Field::d_gate_up_proj, Field::d_gate};
  constexpr std::array kOfInput = {Field::d_permuted_hidden_states, Field::d_experts_hidden_states,
                                   Field::d_input_hidden_states};
  const auto among = [](const auto& fields, Field field) {
    return std::ranges::find(fields, field) != fields.end();
  };
  for (const PlacedField& one : row.gradients)
    if (!(options.dX_only && among(kOfWeights, one.field)) &&
        !(options.dW_only && among(kOfInput, one.field)))
      wanted.push_back(one);
  return wanted;
}

/// Why --backward runs forward alone; nothing where it runs backward, or the problem has none.
std::optional<std::string> forward_alone(const PluginRuns& runs, const Problem& problem,
                                         const PluginOptions& options) {
  if (!options.backward || runs.has_backward() || !has_output_gradient(problem)) return std::nullopt;
  if (runs.row().gradients.empty())
    return "--backward: it has no backward function, so that forward alone was run";
  return fmt::format("--backward: it lists no gradient that {} leaves, so that forward alone was run",
                     options.dX_only ? "--dx-only" : "--dw-only");
}

/// The problem's tokens as they are.
TokenRows tokens_of(const Problem& problem) {
  TokenRows tokens{problem.input.as<Bf16>(), {}};
  if (has_output_gradient(problem)) tokens.output_gradient = problem.output_gradient.as<Bf16>();
  return tokens;
}

/// What a run on the tokens in reverse showed.
std::string order_remark(const ReversedDifferences& reversed, std::size_t fields) {
  if (!reversed.differing.empty())
    return fmt::format(
        "on its tokens in reverse, put back into their order, {} have other bits: the results of a token "
        "depend on where it stands among the others (information: no order is promised)",
        in_words(reversed.differing));
  return fmt::format(
      "on its tokens in reverse, put back into their order, {} the same bits",
      reversed.compared.size() == fields
          ? std::string("every field has")
          : fmt::format("the {} of {} fields whose rows can be told and are no sums over tokens have",
                        reversed.compared.size(), fields));
}

/// What is told beside a run of those that differ.
std::string unstable_remark(const std::vector<FieldDifference>& unstable, std::string_view which) {
  const auto differ = [&](Repeated repeated) {
    return std::ranges::find(unstable, repeated, &FieldDifference::repeated) != unstable.end();
  };
  return fmt::format(
      "{}{}. State left over, a read of what was not written, {}or sums in an order that changes; this is "
      "the "
      "{}, what differs is judged beside it",
      unstable_in_words(unstable),
      differ(Repeated::Run) ? " (in between a run on its tokens in reverse)" : "",
      differ(Repeated::Backward) ? "a saved tensor that the first backward overwrote, " : "", which);
}

/// What the calls on one problem left, and where those on the same input differ.
struct Observed {
  FieldSet first;
  FieldSet second;
  std::optional<FieldSet> second_backward;  // first's, where its gradients are other than the first
  std::vector<FieldDifference> between_runs;
  std::vector<FieldDifference> between_backwards;
  std::vector<FieldDifference> overwritten;  // results of forward, by the first backward
  std::string order;

  std::vector<FieldDifference> unstable() const {
    auto all = between_runs;
    all.insert(all.end(), between_backwards.begin(), between_backwards.end());
    return all;
  }
};

/// Backward twice behind the first forward.
void observe_backward(PluginRuns& runs, const std::string& when, Observed& seen) {
  if (runs.row().device) runs.verify_inputs("after forward, " + when);
  FieldSet gradients = runs.backward(in_backward(when));
  std::vector<Field> of_forward;
  std::vector<Field> of_backward;
  for (const Field field : runs.fields())
    (row(field).group == Group::Forward ? of_forward : of_backward).push_back(field);
  seen.overwritten = differences(of_forward, seen.first, runs.results());
  FieldSet again = runs.backward("in the second backward, " + when);
  seen.between_backwards = differences(of_backward, gradients, again, Repeated::Backward);
  if (runs.row().device) runs.verify_inputs("after backward, " + when);
  seen.first = joined(std::move(seen.first), std::move(gradients));
  if (!seen.between_backwards.empty()) seen.second_backward = joined(seen.first, std::move(again));
}

Observed observe(PluginRuns& runs, const Problem& problem) {
  Observed seen;
  const auto fields = runs.fields();
  const TokenRows tokens = tokens_of(problem);
  const std::string in_first = fmt::format("in its first run on {}", problem.name);
  seen.first = runs.forward(in_first, tokens);
  if (runs.has_backward()) observe_backward(runs, in_first, seen);
  {
    const auto input = reversed_rows(tokens.input, problem.config.hidden_size);
    const auto output_gradient = reversed_rows(tokens.output_gradient, problem.config.hidden_size);
    const FieldSet reversed =
        runs.both(fmt::format("on {} with its tokens in reverse, after one run", problem.name),
                  {input, output_gradient});
    seen.order =
        order_remark(reversed_differences(fields, seen.first, reversed, problem.sizes()), fields.size());
  }
  seen.second = runs.both(fmt::format("in its second run on {}", problem.name), tokens);
  runs.verify_inputs(fmt::format("after its second run on {}", problem.name));
  seen.between_runs = differences(fields, seen.first, seen.second);
  return seen;
}

std::vector<PluginRun> runs_of(const std::string& path, PluginProcess& process, const Problem& problem,
                               const PluginOptions& options) {
  PluginRuns runs(path, process, problem, wanted_gradients(process.row(options.time_limit), problem, options),
                  options.time_limit);
  Observed seen = observe(runs, problem);
  const auto unstable = seen.unstable();
  std::vector<PluginRun> all;
  const auto add = [&](FieldSet fields, std::string_view which) {
    PluginRun& run = all.emplace_back(PluginRun{runs.row().candidate, unstable, {}});
    run.candidate.fields = std::move(fields);
    runs.tell_padding(run.candidate);
    auto& remarks = run.candidate.remarks;
    remarks.push_back(
        unstable.empty()
            ? fmt::format(
                  "ran on the problem twice{}: the same bytes, and nothing written beside the results; {}",
                  runs.has_backward() ? ", backward twice behind the first forward" : "", seen.order)
            : unstable_remark(unstable, which));
    if (!seen.overwritten.empty())
      remarks.push_back(
          fmt::format("backward left other bits in results of forward: {} (information: what is "
                      "judged is what forward left)",
                      in_words(seen.overwritten)));
    if (const auto why = forward_alone(runs, problem, options)) remarks.push_back(*why);
    if (all.size() > 1) run.which = which;
  };
  add(std::move(seen.second), "second run");
  if (!seen.between_runs.empty()) add(std::move(seen.first), "first run");
  if (seen.second_backward) add(std::move(*seen.second_backward), "second backward");
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

std::vector<std::string> plugin_configs(const std::string& path, double time_limit) {
  return process_of(path).row(time_limit).configs;
}

std::vector<PluginRun> run_plugin(const std::string& path, const Problem& problem,
                                  const PluginOptions& options) {
  return in_its_process(path,
                        [&](PluginProcess& process) { return runs_of(path, process, problem, options); });
}

Candidate run_plugin_once(const std::string& path, const Problem& problem, const PluginOptions& options) {
  return in_its_process(path, [&](PluginProcess& process) {
    PluginRuns runs(path, process, problem,
                    wanted_gradients(process.row(options.time_limit), problem, options), options.time_limit);
    const std::string when = fmt::format("on {}", problem.name);
    Candidate candidate = runs.row().candidate;
    candidate.fields = runs.both(when, tokens_of(problem));
    runs.tell_padding(candidate);
    runs.verify_inputs(when);
    if (const auto why = forward_alone(runs, problem, options)) candidate.remarks.push_back(*why);
    return candidate;
  });
}

}  // namespace assay::cli
