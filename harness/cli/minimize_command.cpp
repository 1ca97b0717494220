// assay minimize: the smallest part of a failing problem that still fails the same way, as a golden to
// replay.
#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include "golden/golden_file.h"
#include "golden/sha256.h"
#include "harness/cli/commands.h"
#include "harness/cli/cut_gradients.h"
#include "harness/cli/environment.h"
#include "harness/cli/output.h"
#include "harness/cli/pipeline_reads.h"
#include "harness/cli/place_words.h"
#include "harness/cli/problems.h"
#include "harness/cli/source.h"
#include "harness/contract/counted_words.h"
#include "harness/contract/error.h"
#include "harness/contract/printable.h"
#include "harness/contract/upstream.h"
#include "harness/judge/judge.h"
#include "harness/judge/shrink.h"
#include "reference_cpu/reference_run.h"

namespace assay::cli {
namespace {

constexpr std::int64_t kGpuColumnStep = 8;  // 16-byte rows: what the CUDA pipelines take
constexpr std::int64_t kLargestStored = std::int64_t{1}
                                        << 30;  // bytes of weights put into the file; beyond, generators stay
constexpr std::size_t kExpertCacheBytes = std::size_t{1} << 30;

struct MinimizeOptions {
  SourceOptions source;
  std::string out;
};

/// What must stay the same while the problem shrinks: the first field with an error of its own (or the first
/// that did not pass, where the error is inherited), and its verdict.
struct Symptom {
  std::optional<Field> field;
  bool own = false;
  Verdict verdict = Verdict::NotMaterialised;
  friend bool operator==(const Symptom&, const Symptom&) = default;
};

Symptom symptom(const CaseResult& result) {
  Symptom found;
  found.field = result.first_own_error;
  found.own = found.field.has_value();
  for (const auto& field : result.fields) {
    if (!found.field && field.verdict > Verdict::Passed) found.field = field.field;
    if (found.field == field.field) found.verdict = field.verdict;
  }
  return found;
}

class Minimizer {
 public:
  explicit Minimizer(const MinimizeOptions& options)
      : options_(options), source_(load_source(options.source)) {
    judge_.reference = make_reference;
    judge_.hash = [](std::span<const std::byte> bytes) { return sha256_hex(bytes); };
    judge_.contract = options.source.contract;
    if (!options.source.accumulator.empty()) {
      const Accumulator all = parse_accumulator(options.source.accumulator);
      judge_.accumulators = every_product(all);
    }
  }

  ExitCode run() {
    const CaseResult whole_case = judge(source_.problem, source_.candidate, judge_);
    wanted_ = symptom(whole_case);
    if (!wanted_.field) {
      fmt::print("nothing to minimise: {}\n", printable(whole_case.headline));
      return exit_code(whole_case.verdict);
    }
    route();
    const Part start = whole(source_.problem.sizes());
    if (!attempt(start))
      throw InputError(
          fmt::format("{} fails as recorded, yet not when it is cut out again: its rows are not in a shape "
                      "that can be cut",
                      source_.candidate.name));
    Shrink how;
    how.fails = [this](const Part& part) { return attempt(part).has_value(); };
    how.used_experts = [this](const Part& part) { return used_experts(part); };
    how.progress = [this](const Part& part, std::string_view) {
      progress(fmt::format("minimising: {}", sizes_text(part)));
    };
    const Part part = shrink(start, limits(), how);
    progress_done();
    return finish(start, part);
  }

 private:
  struct Attempt {
    Problem problem;
    Candidate candidate;
    CaseResult result;
  };

  /// The routing by which a file's rows are ordered: the candidate's, or the reference's where that is not
  /// usable.
  void route() {
    const auto upstream = usable_upstream(source_.problem, source_.candidate.fields);
    selected_ =
        make_reference(source_.problem, upstream, source_.contract, source_.accumulators, source_.predict)
            ->routing()
            .selected;
  }

  /// The part judged, if it fails as the whole does. Counts what was tried.
  std::optional<Attempt> attempt(const Part& part) {
    ++tried_;
    Attempt made{subproblem(source_.problem, part), {}, {}};
    made.problem.experts = cached_experts(made.problem.experts, kExpertCacheBytes);
    try {
      if (source_.reruns) {
        made.candidate = run_again(options_.source, made.problem, std::string(source_.contract.name));
      } else {
        auto fields = subfields(source_.candidate.fields, source_.problem.sizes(), selected_, part);
        if (!fields) return std::nullopt;
        made.candidate = source_.candidate;
        made.candidate.oracle = {};
        made.candidate.fields = std::move(*fields);
        cut_weight_gradients(source_.candidate, source_.problem, selected_, part, made.problem,
                             {source_.contract, source_.accumulators, source_.predict}, made.candidate);
      }
      made.result = judge(made.problem, made.candidate, judge_);
    } catch (const InputError&) {
      return std::nullopt;  // a shape that the pipeline does not take
    }
    if (symptom(made.result) != wanted_) return std::nullopt;
    return made;
  }

  /// Those that the part's tokens select, by the routing of the whole: an estimate that only says what to try
  /// first.
  std::vector<std::int64_t> used_experts(const Part& part) const {
    std::vector<std::int64_t> used;
    const std::int64_t top_k = source_.problem.config.top_k;
    for (const auto token : part.tokens)
      for (std::int64_t j = 0; j < top_k; ++j)
        used.push_back(selected_[static_cast<std::size_t>(token * top_k + j)]);
    std::ranges::sort(used);
    used.erase(std::ranges::unique(used).begin(), used.end());
    std::erase_if(used,
                  [&](std::int64_t expert) { return !std::ranges::binary_search(part.experts, expert); });
    return used;
  }

  ShrinkLimits limits() const {
    const bool gpu = options_.source.pipeline.starts_with("gpu");
    return {source_.problem.config.top_k, !source_.reruns ? 0 : gpu ? kGpuColumnStep : 1};
  }

  static std::string sizes_text(const Part& part) {
    return fmt::format("T {}, E {}, H {}, I {}", part.tokens.size(), part.experts.size(), part.hidden.count,
                       part.intermediate.count);
  }

  /// What stayed as large as it was, and why.
  std::string stayed(const Part& start, const Part& part) const {
    std::string text;
    const auto add = [&](const std::string& what) { text += (text.empty() ? "" : ", ") + what; };
    const auto least = static_cast<std::size_t>(source_.problem.config.top_k);
    if (part.tokens.size() > 1) add(fmt::format("tokens below {}", part.tokens.size()));
    if (part.experts.size() > least) add(fmt::format("experts below {}", part.experts.size()));
    if (!source_.reruns)
      add("H and I (the candidate is a file: nothing can be computed again)");
    else {
      if (part.hidden.count == start.hidden.count) add(fmt::format("H {}", part.hidden.count));
      if (part.intermediate.count == start.intermediate.count)
        add(fmt::format("I {}", part.intermediate.count));
    }
    return text.empty() ? "nothing" : text;
  }

  /// "expert 0, was 21; token 0, was 5": numbers of the headline and the file, where they are others.
  static std::string renumbered(const Part& part) {
    std::vector<std::string> all;
    const auto add = [&](const char* what, std::int64_t now, std::int64_t was) {
      if (now != was) all.push_back(fmt::format("{} {}, was {}", what, now, was));
    };
    for (std::size_t i = 0; i < part.experts.size(); ++i)
      add("expert", static_cast<std::int64_t>(i), part.experts[i]);
    for (std::size_t i = 0; i < part.tokens.size(); ++i)
      add("token", static_cast<std::int64_t>(i), part.tokens[i]);
    add("column of H", 0, part.hidden.begin);
    add("column of I", 0, part.intermediate.begin);
    constexpr std::size_t kMost = 16;
    const std::size_t more = all.size() > kMost ? all.size() - kMost : 0;
    all.resize(all.size() - more);
    if (all.empty()) return "nothing";
    return fmt::format("{}{}", fmt::join(all, "; "), more > 0 ? fmt::format("; and {} more", more) : "");
  }

  ExitCode finish(const Part& start, const Part& part) {
    auto least = attempt(part);
    if (!least)
      throw InputError(
          "the smallest part did not fail when it was tried again: the candidate is not deterministic");
    auto& [problem, candidate, result] = *least;
    const auto bytes = std::ssize(part.experts) * 3 * part.hidden.count * part.intermediate.count * 2;
    if (bytes <= kLargestStored) problem.generators = {};
    problem.name += ".minimised";
    candidate.kind = "candidate";
    candidate.provenance["minimised_from"] = source_.words;
    candidate.provenance["renumbered"] = renumbered(part);
    candidate.provenance["kept"] = fmt::format("{}, first token {}", sizes_text(part), part.tokens.front());
    if (candidate.compute_capability.empty() && candidate.producer.empty())
      candidate.producer = candidate.name;
    write_golden(options_.out, problem, candidate);

    // What is printed to replay has been replayed.
    const GoldenFile file = load_file(options_.out);
    const CaseResult again = judge(file.problem, file.candidate, judge_);
    if (symptom(again) != wanted_)
      throw InputError(fmt::format("{} was written, yet read back it does not fail the same way: {}",
                                   options_.out, again.headline));
    std::string flags = fmt::format("--golden {}", options_.out);
    if (!options_.source.contract.empty()) flags += fmt::format(" --contract {}", options_.source.contract);
    if (!options_.source.accumulator.empty())
      flags += fmt::format(" --accumulator '{}'", options_.source.accumulator);
    fmt::print("{}\n\n", printable(again.headline));
    fmt::print("before   {}\nafter    {}\nnumbers  {}\ntried    {}\nstayed   {}\nwritten  {}\n",
               sizes_text(start), sizes_text(part), renumbered(part), counted(tried_, "part"),
               stayed(start, part), options_.out);
    fmt::print("replay   assay verify {}\n", flags);
    if (const auto line = explain_words(again, flags); !line.empty()) fmt::print("explain  {}\n", line);
    return exit_code(again.verdict);
  }

  const MinimizeOptions& options_;
  Source source_;
  JudgeOptions judge_;
  Symptom wanted_;
  std::vector<std::int32_t> selected_;  // [T, K]
  int tried_ = 0;
};

}  // namespace

void add_minimize(CLI::App& app, Program& program) {
  auto* command = app.add_subcommand(
      "minimize", "shrink a failing problem to the smallest that still fails; write it to replay");
  auto options = std::make_shared<MinimizeOptions>();
  add_source_options(*command, options->source);
  command
      ->add_option("-o,--out", options->out,
                   "the golden to write: inputs, weights and the candidate's fields")
      ->required()
      ->type_name("OUT.h5");
  command->footer(
      "Tokens, experts, H and I are cut as long as the first wrong field and its verdict stay. The candidate "
      "is computed again\n"
      "for each part; of a file (dump or golden) only tokens and unrelated experts can be cut. Gradients of\n"
      "weights sum over tokens: of a file's, matrices of experts that lost some are those that the part "
      "gives.\n\n"
      "Example: assay minimize --fixture odd --fault gate_up_sums_in_bf16 -o small.h5\n"
      "Exit codes: 1 or 4 as the minimised problem fails, 0 nothing fails: there is nothing to minimise.");
  command->callback([options, command, &program] {
    program.selected = [options, command] {
      require_time_limit_read(*command, std::span(&options->source.pipeline, 1));
      require_outputs_apart({{"--out", options->out}}, read_files(options->source));
      return Minimizer(*options).run();
    };
  });
}

}  // namespace assay::cli
