#include "harness/cli/plugin/placed_problem.h"

#include <fmt/format.h>
#include <algorithm>
#include <cstring>
#include <exception>

#include "golden/padded_rows.h"
#include "harness/contract/error.h"

namespace assay::cli {
namespace {

Field field_of(const wire::Room& room) { return static_cast<Field>(room.field); }

/// A gradient of before in the type in which the plug-in keeps it: as it is, or bf16 widened.
Tensor in_dtype(const Tensor& before, DType dtype, Field field) {
  if (before.dtype() == dtype) return before;
  if (before.dtype() != DType::BFloat16 || dtype != DType::Float32)
    throw InputError(fmt::format("expected {} in {}, in which the plugin keeps the gradient, found {}",
                                 name_of(field, wire::Role::Previous), row(dtype).name,
                                 row(before.dtype()).name));
  Tensor wide(dtype, before.shape());
  std::ranges::transform(before.as<Bf16>(), wide.as<float>().begin(), [](Bf16 x) { return to_float(x); });
  return wide;
}

}  // namespace

PlacedProblem::Layout PlacedProblem::lay_out(const Problem& problem, const std::vector<PlacedField>& results,
                                             const std::vector<PlacedField>& gradients,
                                             std::int64_t guard) const {
  Layout layout;
  const auto given_room = [&](const PlacedField& placed, wire::Role role) {
    layout.inputs.push_back(make_room(placed, shape_of(placed.field), role, guard, layout.input_bytes));
    layout.input_bytes += layout.inputs.back().image;
  };
  const auto input = [&](Field field) { given_room({field, row(field).dtype}, wire::Role::Input); };
  input(Field::input_hidden_states);
  if (!gradients.empty()) input(Field::d_hidden_states);
  for (const Field field : {Field::gate, Field::gate_up_proj, Field::down_proj}) input(field);
  for (const PlacedField& placed : gradients)
    if (problem.previous.has(placed.field)) given_room(placed, wire::Role::Previous);
  const auto result = [&](const PlacedField& placed, wire::Role role) {
    layout.results.push_back(make_room(placed, shape_of(placed.field), role, guard, layout.result_bytes));
    layout.result_bytes += layout.results.back().image;
  };
  for (const PlacedField& placed : results) result(placed, wire::Role::Result);
  for (const PlacedField& placed : gradients) result(placed, wire::Role::Gradient);
  return layout;
}

PlacedProblem::PlacedProblem(const Problem& problem, const std::vector<PlacedField>& results,
                             const std::vector<PlacedField>& gradients, std::int64_t guard,
                             std::int64_t row_alignment)
    : sizes_(problem.sizes()),
      row_alignment_(row_alignment),
      layout_(lay_out(problem, results, gradients, guard)),
      inputs_(static_cast<std::size_t>(layout_.input_bytes)),
      results_(static_cast<std::size_t>(layout_.result_bytes)) {
  for (const wire::Room& room : layout_.inputs) {
    poison_image(inputs_.data() + room.at, room);
    write(room, problem);
    payloads_.push_back(payload_fingerprint(inputs_.data() + room.at, room));
    guards_.push_back(guards_fingerprint(inputs_.data() + room.at, room));
  }
}

Shape PlacedProblem::shape_of(Field field) const {
  Shape shape = expected_shape(field, sizes_);
  if (row(field).rows == RowsAre::ExpertOrder) shape[0] = most_padded_rows(sizes_, row_alignment_);
  return shape;
}

void PlacedProblem::write(const wire::Room& room, const Problem& problem) {
  std::byte* payload = inputs_.data() + room.at + room.guard;
  const Field field = field_of(room);
  const auto put = [&](std::int64_t first, const void* from, std::size_t bytes) {
    if (first + static_cast<std::int64_t>(bytes) > room.payload)
      throw InputError(fmt::format("expected {} to have {} bytes, found more", name(field), room.payload));
    if (bytes > 0) std::memcpy(payload + first, from, bytes);
  };
  const auto put_all = [&](const Tensor& tensor) { put(0, tensor.bytes().data(), tensor.bytes().size()); };
  if (room.role == wire::Role::Previous)
    return put_all(in_dtype(problem.previous.at(field), static_cast<DType>(room.dtype), field));
  if (field == Field::input_hidden_states) return put_all(problem.input);
  if (field == Field::d_hidden_states) return put_all(problem.output_gradient);
  if (field == Field::gate) return put_all(problem.gate);
  const std::int64_t experts = sizes_.config.num_experts;
  const std::int64_t each = experts == 0 ? 0 : room.payload / experts;
  std::exception_ptr failure;
  // Loading may mean generating: large experts side by side.
  constexpr std::int64_t kWorthThreads = 1 << 20;
#pragma omp parallel for schedule(static) if (room.payload > kWorthThreads)
  for (std::int64_t e = 0; e < experts; ++e) {
    try {
      const ExpertMatrix matrix = problem.experts(field, e);
      put(e * each, matrix.values.data(), matrix.values.size_bytes());
    } catch (...) {
#pragma omp critical
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

wire::Request PlacedProblem::request(wire::Kind kind, wire::Function function) const {
  wire::Request request;
  request.kind = kind;
  request.function = function;
  const MoeConfig& c = sizes_.config;
  request.tokens = sizes_.tokens;
  request.hidden_size = c.hidden_size;
  request.moe_intermediate_size = c.moe_intermediate_size;
  request.num_experts = c.num_experts;
  request.top_k = c.top_k;
  request.norm_topk_prob = c.norm_topk_prob ? 1 : 0;
  request.problem_bytes = layout_.input_bytes;
  request.results_bytes = layout_.result_bytes;
  for (const auto* rooms : {&layout_.inputs, &layout_.results})
    for (const wire::Room& room : *rooms) request.room[static_cast<std::size_t>(request.rooms++)] = room;
  return request;
}

void PlacedProblem::prepare(std::span<const Bf16> input, std::span<const Bf16> output_gradient) {
  for (std::size_t i = 0; i < layout_.inputs.size(); ++i) {
    const wire::Room& room = layout_.inputs[i];
    if (row(field_of(room)).group != Group::Inputs) continue;
    const auto values = field_of(room) == Field::d_hidden_states ? output_gradient : input;
    if (!values.empty())
      std::memcpy(inputs_.data() + room.at + room.guard, values.data(), values.size_bytes());
    payloads_[i] = payload_fingerprint(inputs_.data() + room.at, room);
  }
  for (const wire::Room& room : layout_.results) poison_image(results_.data() + room.at, room);
}

void PlacedProblem::prepare_gradients() {
  for (const wire::Room& room : layout_.results)
    if (room.role == wire::Role::Gradient) poison_image(results_.data() + room.at, room);
}

std::string PlacedProblem::broken_results_guard() const {
  for (const wire::Room& room : layout_.results)
    if (const auto sentence = broken_guard(results_.data() + room.at, room)) return *sentence;
  return "";
}

FieldSet PlacedProblem::results() const { return read(wire::Role::Result); }
FieldSet PlacedProblem::gradients() const { return read(wire::Role::Gradient); }

FieldSet PlacedProblem::read(wire::Role role) const {
  FieldSet fields;
  for (const wire::Room& room : layout_.results) {
    if (room.role != role) continue;
    const Field field = field_of(room);
    Tensor tensor(static_cast<DType>(room.dtype), shape_of(field));
    if (room.payload > 0)
      std::memcpy(tensor.bytes().data(), results_.data() + room.at + room.guard, tensor.bytes().size());
    fields.set(field, std::move(tensor));
  }
  return fields;
}

std::string PlacedProblem::changed_input(const wire::Reply* seen) {
  for (std::size_t i = 0; i < layout_.inputs.size(); ++i) {
    const wire::Room& room = layout_.inputs[i];
    const auto field = static_cast<std::size_t>(room.field);
    const std::byte* image = inputs_.data() + room.at;
    if (payload_fingerprint(image, room) != payloads_[i] ||
        (seen != nullptr && seen->payloads[field] != payloads_[i]))
      return fmt::format("expected its inputs to be left alone, found {} changed",
                         name_of(field_of(room), room.role));
    if (guards_fingerprint(image, room) != guards_[i] ||
        (seen != nullptr && seen->guards[field] != guards_[i]))
      return fmt::format("expected the memory beside {} to be left alone, found it overwritten",
                         name_of(field_of(room), room.role));
  }
  return "";
}

}  // namespace assay::cli
