#include "harness/cli/plugin_pipeline.h"

#include <dlfcn.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <sstream>

#include <fmt/format.h>

#include "gpu/device_guards.h"
#include "harness/cli/crash_sentence.h"
#include "harness/contract/accumulator.h"
#include "harness/contract/error.h"
#include "harness/contract/precision_contract.h"
#include "harness/host/plugin.h"

namespace assay::cli {
namespace {

/// A plugin's own words, checked.
struct Plugin {
  const assay_plugin_row* row = nullptr;
  std::string path;
  std::vector<Field> fields;
  Candidate described;  // without fields
};

std::vector<Field> listed_fields(const std::string& path, const char* words) {
  std::vector<Field> fields;
  std::istringstream names(words == nullptr ? "" : words);
  for (std::string word; names >> word;) {
    const auto field = find_field(word);
    if (!field || row(*field).group != Group::Forward)
      throw InputError(
          fmt::format("expected {} to list forward fields (assay list fields), found '{}'", path, word));
    fields.push_back(*field);
  }
  if (fields.empty())
    throw InputError(fmt::format("expected {} to list the fields it writes, found none", path));
  return fields;
}

/// What the plugin declares, in the words of the command line.
Candidate described(const Plugin& plugin) {
  const assay_plugin_row& row = *plugin.row;
  Candidate candidate = row.memory == ASSAY_DEVICE ? candidate_of_device(plugin.path) : Candidate{};
  if (row.memory == ASSAY_HOST) candidate.device = "cpu";
  candidate.producer = row.name;
  try {
    candidate.contract = find_contract(row.contract).name;
    if (row.accumulators[0] != '\0') {
      const Accumulator all = parse_accumulator(row.accumulators);
      candidate.accumulators = every_product(all);
    }
    candidate.ties = parse_tie_rule(row.ties);
  } catch (const UsageError& error) {
    throw InputError(fmt::format("{} declares what assay does not know: {}", plugin.path, error.what()));
  }
  return candidate;
}

/// A library that is loaded stays: it may have threads, or a CUDA context.
Plugin load(const std::string& path) {
  if (!std::filesystem::is_regular_file(path))
    throw InputError(fmt::format("expected a shared library at {}, found no such file", path));
  void* library = dlopen(std::filesystem::absolute(path).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw InputError(fmt::format("{} cannot be loaded as a shared library: {}", path, dlerror()));
  const auto entry = reinterpret_cast<decltype(&assay_plugin)>(dlsym(library, "assay_plugin"));
  if (entry == nullptr)
    throw InputError(fmt::format(
        "expected {} to export assay_plugin (harness/host/plugin.h), found no such symbol", path));
  Plugin plugin{entry(), path, {}, {}};
  if (plugin.row == nullptr)
    throw InputError(fmt::format("expected assay_plugin() of {} to return its row, found null", path));
  const assay_plugin_row& row = *plugin.row;
  if (row.interface != ASSAY_PLUGIN_INTERFACE)
    throw InputError(fmt::format("expected {} to be built for plugin interface {}, found {}", path,
                                 ASSAY_PLUGIN_INTERFACE, row.interface));
  if (row.memory != ASSAY_HOST && row.memory != ASSAY_DEVICE)
    throw InputError(
        fmt::format("expected memory of {} to be ASSAY_HOST or ASSAY_DEVICE, found {}", path, row.memory));
  for (const char* word : {row.name, row.fields, row.contract, row.accumulators, row.ties})
    if (word == nullptr)
      throw InputError(fmt::format(
          "expected name, fields, contract, accumulators and ties of {} to be set, found a null", path));
  if (row.forward == nullptr)
    throw InputError(fmt::format("expected {} to have a forward function, found null", path));
  plugin.fields = listed_fields(path, row.fields);
  plugin.described = described(plugin);
  return plugin;
}

/// The rooms of one problem.
class PluginRuns {
 public:
  PluginRuns(const Plugin& plugin, const Problem& problem)
      : plugin_(plugin),
        problem_(problem),
        sizes_(problem.sizes()),
        memory_(plugin.row->memory == ASSAY_DEVICE ? device_foreign_memory() : host_foreign_memory()) {
    const auto& c = sizes_.config;
    call_ = {sizes_.tokens, c.hidden_size, c.moe_intermediate_size,
             c.num_experts, c.top_k,       c.norm_topk_prob ? 1 : 0,
             nullptr,       nullptr,       nullptr,
             nullptr};
    call_.input_hidden_states = tensor_room(Field::input_hidden_states, problem.input);
    call_.gate = tensor_room(Field::gate, problem.gate);
    call_.gate_up_proj = expert_room(Field::gate_up_proj);
    call_.down_proj = expert_room(Field::down_proj);
    for (const Field field : plugin.fields) {
      Tensor tensor(row(field).dtype, expected_shape(field, sizes_));
      result(field) = memory_->room(std::string(name(field)), tensor.bytes().size());
      results_.set(field, std::move(tensor));
    }
    std::memcpy(&out_, rooms_.data(), sizeof(out_));
  }

  FieldSet run(const std::string& words, std::span<const Bf16> input) {
    memory_->write(const_cast<std::uint16_t*>(call_.input_hidden_states), input.data(), input.size_bytes());
    for (const Field field : plugin_.fields)
      memory_->poison(result(field), results_.at(field).bytes().size());
    std::vector<char> why(1024, '\0');
    const int status = forward(words, why);
    why.back() = '\0';
    if (status == ASSAY_UNSUPPORTED)
      throw InputError(fmt::format("{} does not support this problem: {}", plugin_.path, why.data()));
    if (status != ASSAY_OK)
      throw CandidateError(
          fmt::format("{} failed {}: {}", plugin_.path, words,
                      why[0] == '\0' ? fmt::format("status {}, no sentence", status) : why.data()));
    rules([&] { memory_->finish(); });
    rules([&] { memory_->verify_guards(); });
    for (const Field field : plugin_.fields)
      memory_->read(results_.at(field).bytes().data(), result(field), results_.at(field).bytes().size());
    return results_;
  }

  /// Throws CandidateError when an input is not what was written.
  void verify_inputs(std::span<const Bf16> input) {
    verify(call_.input_hidden_states, input, Field::input_hidden_states, 0);
    verify(call_.gate, problem_.gate.as<Bf16>(), Field::gate, 0);
    for (const auto& [field, room] :
         {std::pair(Field::gate_up_proj, call_.gate_up_proj), std::pair(Field::down_proj, call_.down_proj)})
      for (std::int64_t e = 0; e < sizes_.config.num_experts; ++e)
        verify(room, problem_.experts(field, e).values, field, e);
  }

 private:
  int forward(const std::string& words, std::vector<char>& why) {
    const CrashSentence sentence(fmt::format("{} crashed {}", plugin_.path, words));
    try {
      return plugin_.row->forward(&call_, &out_, why.data(), static_cast<std::int64_t>(why.size()));
    } catch (const std::exception& error) {
      throw CandidateError(fmt::format("{} threw an exception {}: {}", plugin_.path, words, error.what()));
    } catch (...) {
      throw CandidateError(fmt::format("{} threw an exception {}", plugin_.path, words));
    }
  }

  template <class Check>
  void rules(Check check) const {
    try {
      check();
    } catch (const CandidateError& error) {
      throw CandidateError(fmt::format("{}: {}", plugin_.path, error.what()));
    }
  }

  const std::uint16_t* tensor_room(Field field, const Tensor& tensor) {
    void* room = memory_->room(std::string(name(field)), tensor.bytes().size());
    memory_->write(room, tensor.bytes().data(), tensor.bytes().size());
    return static_cast<std::uint16_t*>(room);
  }

  const std::uint16_t* expert_room(Field field) {
    const Shape shape = expected_shape(field, sizes_);
    const std::int64_t each = shape[1] * shape[2];
    auto* room = static_cast<std::uint16_t*>(
        memory_->room(std::string(name(field)), static_cast<std::size_t>(shape[0] * each) * sizeof(Bf16)));
    for (std::int64_t e = 0; e < shape[0]; ++e) {
      const ExpertMatrix matrix = problem_.experts(field, e);
      memory_->write(room + e * each, matrix.values.data(), matrix.values.size_bytes());
    }
    return room;
  }

  void verify(const std::uint16_t* room, std::span<const Bf16> written, Field field, std::int64_t part) {
    seen_.resize(written.size());
    memory_->read(seen_.data(), room + part * static_cast<std::int64_t>(written.size()),
                  written.size_bytes());
    if (!written.empty() && std::memcmp(seen_.data(), written.data(), written.size_bytes()) != 0)
      throw CandidateError(
          fmt::format("expected {} to leave its inputs alone, found {} changed", plugin_.path, name(field)));
  }

  void*& result(Field field) { return rooms_[static_cast<std::size_t>(field) - kFirst]; }

  static constexpr std::size_t kFirst = static_cast<std::size_t>(Field::router_logits);
  static constexpr std::size_t kResults = static_cast<std::size_t>(Field::hidden_states) - kFirst + 1;
  static_assert(sizeof(assay_results) == kResults * sizeof(void*),
                "assay_results has one pointer per forward field, in the table's order");

  const Plugin& plugin_;
  const Problem& problem_;
  Sizes sizes_;
  std::unique_ptr<ForeignMemory> memory_;
  assay_problem call_{};
  std::array<void*, kResults> rooms_{};
  assay_results out_{};
  FieldSet results_;
  std::vector<Bf16> seen_;
};

/// "first_gemm: 12 of 3,120 elements", for every field that differs.
std::string differences(const std::vector<Field>& fields, const FieldSet& first, const FieldSet& second) {
  std::string words;
  for (const Field field : fields) {
    const auto a = first.at(field).bytes(), b = second.at(field).bytes();
    const std::size_t width = a.empty() ? 1 : a.size() / static_cast<std::size_t>(first.at(field).size());
    std::int64_t differing = 0;
    for (std::size_t i = 0; i < a.size(); i += width) differing += std::memcmp(&a[i], &b[i], width) != 0;
    if (differing > 0)
      words += fmt::format("{}{} of {} elements of {}", words.empty() ? "" : ", ", differing,
                           first.at(field).size(), name(field));
  }
  return words;
}

}  // namespace

void check_plugin(const std::string& path) { load(path); }

std::vector<Candidate> run_plugin(const std::string& path, const Problem& problem) {
  const Plugin plugin = load(path);
  PluginRuns runs_of(plugin, problem);
  const auto input = problem.input.as<Bf16>();
  std::vector<Bf16> reversed(input.begin(), input.end());
  const auto hidden = static_cast<std::ptrdiff_t>(problem.config.hidden_size);
  for (std::ptrdiff_t t = 0, tokens = problem.sizes().tokens; t < tokens; ++t)
    std::copy_n(input.begin() + (tokens - 1 - t) * hidden, hidden, reversed.begin() + t * hidden);

  Candidate candidate = plugin.described, first = plugin.described;
  first.fields = runs_of.run(fmt::format("in its first run on {}", problem.name), input);
  runs_of.run(fmt::format("on {} with its tokens in reverse, after one run", problem.name), reversed);
  candidate.fields = runs_of.run(fmt::format("in its second run on {}", problem.name), input);
  runs_of.verify_inputs(input);
  const std::string words = differences(plugin.fields, first.fields, candidate.fields);
  std::vector<Candidate> runs;
  if (words.empty()) {
    candidate.remarks.push_back(
        "ran on the problem, on its tokens in reverse and on the problem again: the same bytes, and nothing "
        "written beside the results");
    runs.push_back(std::move(candidate));
    return runs;
  }
  for (auto* run : {&candidate, &first}) {
    run->remarks.push_back(
        fmt::format("two runs on the problem differ (in between, its tokens in reverse): {}. State left "
                    "over, a read of what was not written, "
                    "or sums in an order that changes; this is the {} run, the other is judged beside it",
                    words, run == &first ? "first" : "second"));
    runs.push_back(std::move(*run));
  }
  return runs;
}

}  // namespace assay::cli
