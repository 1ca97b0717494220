#include "harness/cli/plugin/plugin_child.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include "gpu/foreign_device_memory.h"
#include "harness/cli/plugin/child_rooms.h"
#include "harness/cli/plugin/plugin_row.h"
#include "harness/cli/plugin/plugin_wire.h"
#include "harness/contract/error.h"
#include "harness/host/child_program.h"

namespace assay::cli {
namespace {

// What the handler of a fault may touch: plain memory, made ready before.
int parent = -1;
const ChildRooms* rooms_in_use = nullptr;
wire::Reply fault;
std::array<char, 65536> handler_stack;  // for a fault by a stack that is full

/// 1 for a write, 0 for a read, -1 where the machine does not say.
int wrote([[maybe_unused]] const void* context) {
#if defined(__x86_64__)
  constexpr greg_t kWriteBit = 2;  // of the page fault's error code
  return (static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_ERR] & kWriteBit) != 0;
#else
  return -1;
#endif
}

/// Tells the parent where it hit, then lets the signal end the process.
void on_fault(int signal, siginfo_t* info, void* context) {
  fault.kind = wire::Kind::Fault;
  fault.signal = signal;
  if ((signal == SIGSEGV || signal == SIGBUS) && info->si_code > 0) {
    fault.has_address = 1;
    fault.distance = reinterpret_cast<std::intptr_t>(info->si_addr);
    fault.wrote = wrote(context);
    if (rooms_in_use != nullptr) rooms_in_use->locate(info->si_addr, fault);
  }
  send_to_parent(parent, &fault, sizeof(fault));
  ::signal(signal, SIG_DFL);
  raise(signal);
}

void report_faults() {
  stack_t alternate{};
  alternate.ss_sp = handler_stack.data();
  alternate.ss_size = handler_stack.size();
  sigaltstack(&alternate, nullptr);
  struct sigaction action{};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_ONSTACK | SA_SIGINFO;
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS})
    sigaction(signal, &action, nullptr);
}

bool say(const wire::Reply& reply) { return send_to_parent(parent, &reply, sizeof(reply)); }

wire::Reply sentence(wire::Kind kind, const std::string& words) {
  wire::Reply reply;
  reply.kind = kind;
  words.copy(reply.text.data(), reply.text.size() - 1);
  return reply;
}

/// The row, the configs and the device it runs on: words each ended by a zero.
wire::Reply description(const assay_plugin_row& row, const std::string& path,
                        const std::vector<std::string>& configs) {
  std::string words;
  const auto add = [&](const std::string& word) { words += word + '\0'; };
  const char* gradients = row.gradients == nullptr ? "" : row.gradients;
  for (const char* word : {row.name, row.fields, row.contract, row.accumulators, row.ties, gradients})
    add(word);
  add(fmt::format("{}", fmt::join(configs, " ")));
  if (row.memory == ASSAY_DEVICE) {
    const Candidate on = candidate_of_device(path);
    add(on.device);
    add(on.compute_capability);
    for (const auto& [key, value] : on.provenance) {
      add(key);
      add(value);
    }
  }
  wire::Reply reply = sentence(wire::Kind::Described, words);
  reply.memory = row.memory;
  return reply;
}

constexpr std::size_t fields_between(Field first, Field last) {
  return static_cast<std::size_t>(last) - static_cast<std::size_t>(first) + 1;
}
constexpr Field field_behind(Field first, std::size_t i) {
  return static_cast<Field>(static_cast<std::size_t>(first) + i);
}

std::int32_t dtype_of(std::optional<DType> dtype) {
  if (!dtype) return ASSAY_NONE;
  return *dtype == DType::Float32 ? ASSAY_FLOAT32 : ASSAY_BF16;
}

class Child {
 public:
  Child(const assay_plugin_row& row, std::string path) : row_(row), path_(std::move(path)) {}

  wire::Reply answer(const wire::Request& request, int problem, int results) {
    try {
      if (request.kind == wire::Kind::Place) return place(request, problem, results);
      if (!rooms_) throw InputError("expected a problem before anything else");
      if (request.kind == wire::Kind::Run) return run(request.function);
      wire::Reply reply;
      rooms_->fingerprints(reply);
      return reply;
    } catch (const CandidateError& error) {
      return sentence(wire::Kind::Broke, error.what());
    } catch (const std::exception& error) {
      return sentence(wire::Kind::Refused, error.what());
    }
  }

 private:
  wire::Reply place(const wire::Request& request, int problem, int results) {
    rooms_in_use = nullptr;
    rooms_.reset();
    rooms_ = std::make_unique<ChildRooms>(request, problem, results,
                                          row_.memory == ASSAY_DEVICE ? foreign_device_memory() : nullptr);
    rooms_in_use = rooms_.get();
    rooms_->send_problem();
    const auto input = [&](Field field) {
      return static_cast<const std::uint16_t*>(rooms_->payload(field, wire::Role::Input));
    };
    problem_ = {request.tokens,
                request.hidden_size,
                request.moe_intermediate_size,
                request.num_experts,
                request.top_k,
                request.norm_topk_prob,
                input(Field::input_hidden_states),
                input(Field::gate),
                input(Field::gate_up_proj),
                input(Field::down_proj)};
    d_hidden_states_ = input(Field::d_hidden_states);
    std::array<void*, fields_between(Field::router_logits, Field::hidden_states)> pointers{};
    static_assert(sizeof(assay_results) == sizeof(pointers),
                  "assay_results has one pointer per forward field, in the table's order");
    for (std::size_t i = 0; i < pointers.size(); ++i)
      pointers[i] = rooms_->payload(field_behind(Field::router_logits, i), wire::Role::Result);
    std::memcpy(&results_, pointers.data(), sizeof(results_));
    std::array<assay_gradient, fields_between(Field::d_second_gemm, Field::d_input_hidden_states)>
        gradients{};
    static_assert(sizeof(assay_gradients) == sizeof(gradients),
                  "assay_gradients has one member per backward field, in the table's order");
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      const Field field = field_behind(Field::d_second_gemm, i);
      gradients[i] = {rooms_->payload(field, wire::Role::Gradient), dtype_of(rooms_->gradient_dtype(field)),
                      rooms_->payload(field, wire::Role::Previous)};
    }
    std::memcpy(&gradients_, gradients.data(), sizeof(gradients_));
    return {};
  }

  /// One call of a function. The plug-in gets copies of the structs: they are its to change.
  wire::Reply run(wire::Function function) {
    rooms_->send(function);
    wire::Reply reply;
    std::array<char, 1024> why{};
    const auto why_size = static_cast<std::int64_t>(why.size());
    const assay_problem problem = problem_;
    const assay_results results = results_;
    const assay_gradients gradients = gradients_;
    try {
      reply.status =
          function == wire::Function::Forward
              ? row_.forward(&problem, &results, why.data(), why_size)
              : row_.backward(&problem, &results, d_hidden_states_, &gradients, why.data(), why_size);
    } catch (const std::exception& error) {
      return sentence(wire::Kind::Broke, fmt::format("threw an exception: {}", error.what()));
    } catch (...) {
      return sentence(wire::Kind::Broke, "threw an exception");
    }
    std::fflush(stdout);  // what it printed appears beside its run
    why.back() = '\0';
    std::memcpy(reply.text.data(), why.data(), why.size());
    if (reply.status == ASSAY_OK) rooms_->fetch();
    return reply;
  }

  const assay_plugin_row& row_;
  std::string path_;
  std::unique_ptr<ChildRooms> rooms_;
  assay_problem problem_{};
  assay_results results_{};
  const std::uint16_t* d_hidden_states_ = nullptr;
  assay_gradients gradients_{};
};

}  // namespace

int plugin_child(const char* path, const char* config, const char* socket) {
  parent = std::atoi(socket);
  live_as_child(parent);
  report_faults();
  assay_plugin_row row{};
  try {
    void* library = load_library(path);
    const auto next = [](const std::string& step) { say(sentence(wire::Kind::Step, step)); };
    next("in assay_plugin_configs()");
    const auto configs = configs_of_library(library, path);
    if (config != nullptr) {
      next(fmt::format("in assay_plugin_select() of {}", config));
      select_config(library, path, config);
    }
    next(std::string(kInAssayPlugin));
    row = row_of_library(library, path);
    next("while it was described");
    say(description(row, path, configs));
  } catch (const CandidateError& error) {
    say(sentence(wire::Kind::Broke, error.what()));
    return 0;
  } catch (const std::exception& error) {
    say(sentence(wire::Kind::Refused, error.what()));
    return 0;
  }
  Child child(row, path);
  wire::Request request;
  for (std::array<int, 2> shared{}; receive_from_parent(parent, &request, sizeof(request), shared);)
    if (!say(child.answer(request, shared[0], shared[1]))) break;
  rooms_in_use = nullptr;
  return 0;
}

}  // namespace assay::cli
