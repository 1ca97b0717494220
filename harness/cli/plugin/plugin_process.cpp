#include "harness/cli/plugin/plugin_process.h"

#include <fmt/format.h>
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <sstream>

#include "golden/padded_rows.h"
#include "harness/cli/plugin/plugin_child.h"
#include "harness/cli/plugin/plugin_row.h"
#include "harness/contract/accumulator.h"
#include "harness/contract/digits.h"
#include "harness/contract/precision_contract.h"

namespace assay::cli {
namespace {

constexpr double kNotAPluginsTime = 600.0;  // copies to a device, not the plug-in's own work

std::string text(const wire::Reply& reply) {
  return {reply.text.data(), strnlen(reply.text.data(), reply.text.size())};
}

/// "128", in 1 to 65536.
std::int64_t parse_alignment(std::string_view digits) {
  std::int64_t alignment = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), alignment);
  if (error != std::errc() || end != digits.data() + digits.size() || alignment < 1 ||
      alignment > kMostRowAlignment)
    throw UsageError(
        fmt::format("row_alignment={}; expected a number in 1 to {}", digits, kMostRowAlignment));
  return alignment;
}

/// "lowest_index rows_any row_alignment=128": how ties are broken, and how the rows of an expert lie. Throws
/// UsageError.
void read_order(const std::string& ties, PluginRow& row) {
  constexpr std::string_view kAlignment = "row_alignment=";
  const auto begin_of_rest = std::min(ties.find(' '), ties.size());
  row.candidate.ties = parse_tie_rule(ties.substr(0, begin_of_rest));
  std::istringstream rest(ties.substr(begin_of_rest));
  for (std::string word; rest >> word;) {
    if (word == "rows_any")
      row.candidate.row_order = ExpertRowOrder::Any;
    else if (word.starts_with(kAlignment))
      row.row_alignment = parse_alignment(std::string_view(word).substr(kAlignment.size()));
    else
      throw UsageError(fmt::format("'{}' behind its ties; valid: rows_any, {}N", word, kAlignment));
  }
}

/// Where the rows of an expert begin follows from how many those before it have.
void require_counts(const PluginRow& row, const std::string& path) {
  const auto lists = [&](Field field) {
    return std::ranges::find(row.results, field, &PlacedField::field) != row.results.end();
  };
  if (row.row_alignment > 1 && !lists(Field::selected_experts) && !lists(Field::token_counts_by_expert))
    throw InputError(
        fmt::format("{} declares row_alignment={}: expected it to list selected_experts or "
                    "token_counts_by_expert, which say where rows begin, found neither",
                    path, row.row_alignment));
}

/// The words of a description, in the words of the command line.
PluginRow read_row(const wire::Reply& reply, const std::string& path) {
  constexpr std::size_t kOfTheRow = 7;  // those of the device, if there is one, are never empty
  std::vector<std::string> words;
  for (const char* at = reply.text.data(); *at != '\0' || words.size() < kOfTheRow;
       at += words.back().size() + 1)
    words.emplace_back(at);
  PluginRow row;
  row.results = listed_results(path, words[1]);
  if (!words[5].empty()) row.gradients = listed_gradients(path, words[5]);
  std::istringstream configs(words[6]);
  for (std::string config; configs >> config;) row.configs.push_back(config);
  row.device = reply.memory == ASSAY_DEVICE;
  Candidate& candidate = row.candidate;
  candidate.name = path;
  candidate.producer = words[0];
  candidate.device = row.device ? words.at(kOfTheRow) : "cpu";
  if (row.device) candidate.compute_capability = words.at(kOfTheRow + 1);
  for (std::size_t i = kOfTheRow + 2; i + 1 < words.size(); i += 2)
    candidate.provenance[words[i]] = words[i + 1];
  try {
    candidate.contract = find_contract(words[2]).name;
    if (!words[3].empty()) {
      const Accumulator all = parse_accumulator(words[3]);
      candidate.accumulators = every_product(all);
    }
    read_order(words[4], row);
  } catch (const UsageError& error) {
    throw InputError(fmt::format("{} declares what assay does not know: {}", path, error.what()));
  }
  require_counts(row, path);
  return row;
}

std::string named(const wire::Reply& fault) { return name_of(static_cast<Field>(fault.field), fault.role); }

/// "; it read byte 8,192 behind gate", or nothing.
std::string where(const wire::Reply& fault) {
  if (fault.has_address == 0) return "";
  constexpr std::int64_t kNearNull = 1 << 16;
  if (fault.field < 0)
    return fault.distance >= 0 && fault.distance < kNearNull
               ? "; it used a null pointer (fields that it does not list are null)"
               : "";
  return fmt::format("; it {} byte {} {} {}", fault.wrote == 0 ? "read" : "touched",
                     grouped_digits(fault.distance),
                     fault.touched == wire::Touched::Before ? "before" : "behind", named(fault));
}

}  // namespace

const PluginRow& PluginProcess::row(double time_limit) {
  if (failed_) std::rethrow_exception(failed_);
  if (child_) return *row_;
  try {
    load(time_limit);
  } catch (...) {
    failed_ = std::current_exception();
    child_.reset();
    throw;
  }
  return *row_;
}

PluginName::PluginName(const std::string& word) : path(word) {
  const auto sign = word.rfind('#');
  if (sign == std::string::npos || std::filesystem::exists(word)) return;
  path = word.substr(0, sign);
  config = word.substr(sign + 1);
}

void PluginProcess::load(double time_limit) {
  const PluginName name(path_);
  if (!std::filesystem::is_regular_file(name.path))
    throw InputError(fmt::format("expected a shared library at {}, found {}", name.path,
                                 std::filesystem::exists(name.path) ? "a folder or device" : "no such file"));
  std::vector<std::string> arguments = {std::string(kPluginChild), name.path};
  if (!name.config.empty()) arguments.push_back(name.config);
  child_ = std::make_unique<ChildProgram>(arguments);
  wire::Reply reply = await(time_limit, "while it was loaded");
  std::string step;
  while (reply.kind == wire::Kind::Step) reply = await(time_limit, step = text(reply));
  // A config that the library lists has a row of it: another row than a valid one is the library's fault.
  const bool promised = !name.config.empty();
  if (reply.kind == wire::Kind::Broke ||
      (promised && reply.kind == wire::Kind::Refused && step == kInAssayPlugin))
    throw CandidateError(text(reply));
  if (reply.kind != wire::Kind::Described) throw InputError(text(reply));
  try {
    row_ = read_row(reply, path_);
  } catch (const InputError& error) {
    if (promised) throw CandidateError(error.what());
    throw;
  }
}

void PluginProcess::place(const PlacedProblem& problem, double time_limit) {
  const std::array descriptors = {problem.problem_descriptor(), problem.results_descriptor()};
  const auto place = [&] {
    return ask(problem.request(wire::Kind::Place), std::max(time_limit, kNotAPluginsTime), "before a run",
               descriptors);
  };
  wire::Reply reply = place();
  if (reply.kind !=
      wire::Kind::Done) {  // what earlier runs left behind, limits or a full device, is not this problem's
    child_.reset();
    row(time_limit);
    reply = place();
  }
  if (reply.kind != wire::Kind::Done)
    throw EndedError(fmt::format("{} could not be given this problem: {}", path_, text(reply)),
                     Verdict::NotJudged);
}

void PluginProcess::run(const PlacedProblem& problem, wire::Function function, double time_limit,
                        const std::string& when) {
  const auto reply = ask(problem.request(wire::Kind::Run, function), time_limit, when);
  if (reply.kind == wire::Kind::Broke)
    throw CandidateError(fmt::format("{} {}: {}", path_, when, text(reply)));
  if (reply.kind != wire::Kind::Done) throw InputError(fmt::format("{} {}: {}", path_, when, text(reply)));
  const std::string why = text(reply);
  if (reply.status == ASSAY_UNSUPPORTED)
    throw InputError(fmt::format("{} does not support this problem{}: {}", path_,
                                 function == wire::Function::Backward ? "'s backward pass" : "", why));
  if (reply.status != ASSAY_OK)
    throw CandidateError(
        fmt::format("{} failed {}: {}", path_, when,
                    why.empty() ? fmt::format("status {}, no sentence", reply.status) : why));
}

wire::Reply PluginProcess::fingerprints(const PlacedProblem& problem, double time_limit) {
  auto reply =
      ask(problem.request(wire::Kind::Verify), std::max(time_limit, kNotAPluginsTime), "after its runs");
  if (reply.kind != wire::Kind::Done) throw InputError(fmt::format("{}: {}", path_, text(reply)));
  return reply;
}

void PluginProcess::rest() {
  if (child_) child_->pause();
}

wire::Reply PluginProcess::ask(const wire::Request& request, double seconds, const std::string& when,
                               std::span<const int> descriptors) {
  if (!child_) throw InputError(fmt::format("expected the process of {} to run", path_));
  child_->resume();
  child_->send(&request, sizeof(request), descriptors);  // where it has gone, await says so
  return await(seconds, when);
}

wire::Reply PluginProcess::await(double seconds, const std::string& when) {
  constexpr double kDying = 10.0;
  wire::Reply reply;
  if (!child_->receive(&reply, sizeof(reply), seconds)) report_ending(std::nullopt, seconds, when);
  if (reply.kind != wire::Kind::Fault) return reply;
  wire::Reply after;
  while (child_->receive(&after, sizeof(after), kDying)) {
  }
  report_ending(reply, seconds, when);
}

void PluginProcess::report_ending(const std::optional<wire::Reply>& fault, double seconds,
                                  const std::string& when) {
  const ChildEnding ending = child_->ending();
  child_.reset();
  if (fault && fault->touched == wire::Touched::Input)
    throw CandidateError(
        fmt::format("expected {} to leave its inputs alone, found that it wrote to {} (byte {}) {}", path_,
                    named(*fault), grouped_digits(fault->distance), when));
  if (fault && fault->touched != wire::Touched::Elsewhere && fault->wrote == 1) {
    const char* side = fault->touched == wire::Touched::Before ? "before" : "behind";
    throw CandidateError(fmt::format(
        "{}: expected the memory {} {} to be left alone, found that it wrote to byte {} {} it, beyond "
        "the guard band, {}",
        path_, side, named(*fault), grouped_digits(fault->distance), side, when));
  }
  if (fault || ending.how == ChildEnding::How::Signalled)
    throw EndedError(fmt::format("{} crashed {} (signal {}){}", path_, when,
                                 fault ? fault->signal : ending.number, fault ? where(*fault) : ""),
                     Verdict::Crashed);
  if (ending.how == ChildEnding::How::OutOfTime)
    throw EndedError(
        fmt::format("{} did not return within {:g} s {} (--time-limit), and was ended", path_, seconds, when),
        Verdict::TimedOut);
  throw EndedError(fmt::format("{} ended its process {} (exit code {})", path_, when, ending.number),
                   Verdict::Crashed);
}

}  // namespace assay::cli
