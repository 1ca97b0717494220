#include "gpu/device_problem.h"

#include <exception>

namespace assay::gpu {
namespace {

void require_shape(const Tensor& tensor, Field field, const Sizes& sizes) {
  if (tensor.dtype() != row(field).dtype || tensor.shape() != expected_shape(field, sizes))
    throw InputError("expected " + std::string(name(field)) + " to be bfloat16 " +
                     to_string(expected_shape(field, sizes)) + ", found " + to_string(tensor.shape()));
}

Buffer<bf16> upload_tensor(const Tensor& tensor, Field field, const Sizes& sizes) {
  require_shape(tensor, field, sizes);
  Buffer<bf16> buffer(std::string(name(field)), tensor.size());
  buffer.upload(tensor.bytes().data(), 0, tensor.size());
  return buffer;
}

// Loading may mean generating: experts are loaded side by side and uploaded as they come.
Buffer<bf16> upload_experts(const Problem& problem, Field field) {
  const Sizes sizes = problem.sizes();
  const std::int64_t experts = sizes.config.num_experts;
  const std::int64_t elements =
      sizes.config.moe_intermediate_size * sizes.config.hidden_size * (field == Field::gate_up_proj ? 2 : 1);
  Buffer<bf16> buffer(std::string(name(field)), experts * elements);
  std::exception_ptr failure;
#pragma omp parallel for schedule(static)
  for (std::int64_t expert = 0; expert < experts; ++expert) {
    try {
      const ExpertMatrix matrix = problem.experts(field, expert);
      if (static_cast<std::int64_t>(matrix.values.size()) != elements)
        throw InputError("expected expert " + std::to_string(expert) + " of " + std::string(name(field)) +
                         " to have " + std::to_string(elements) + " elements, found " +
                         std::to_string(matrix.values.size()));
      buffer.upload(matrix.values.data(), expert * elements, elements);
    } catch (...) {
#pragma omp critical
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
  return buffer;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version / 10 % 100);
}

}  // namespace

DeviceProblem upload(const Problem& problem) {
  const Sizes sizes = problem.sizes();
  const bool backward = problem.output_gradient.size() > 0;
  return {.sizes = sizes,
          .input = upload_tensor(problem.input, Field::input_hidden_states, sizes),
          .d_out = backward ? upload_tensor(problem.output_gradient, Field::d_hidden_states, sizes)
                            : Buffer<bf16>(),
          .gate = upload_tensor(problem.gate, Field::gate, sizes),
          .gate_up_proj = upload_experts(problem, Field::gate_up_proj),
          .down_proj = upload_experts(problem, Field::down_proj)};
}

void DeviceProblem::verify_guards() const {
  for (const auto* buffer : {&input, &d_out, &gate, &gate_up_proj, &down_proj}) buffer->verify_guards();
}

RoutingBuffers::RoutingBuffers(const Sizes& sizes)
    : selected_experts("selected_experts", sizes.slots()),
      topk_weights("topk_weights", sizes.slots()),
      chunk_counts("chunk_counts", padded_counts(sizes.config.num_experts) * chunks_of(sizes.tokens).count),
      counts("token_counts_by_expert", sizes.config.num_experts),
      first_rows("first rows of the experts", sizes.config.num_experts),
      gather_indices("gather_indices", sizes.slots()),
      row_of_slot("row_of_slot", sizes.slots()),
      tiles("row tiles", max_row_tiles(sizes)),
      counters("tile counters", 1),
      finished("finished elements of the experts", sizes.config.num_experts) {}

DeviceRouting RoutingBuffers::view(bool wide) const {
  return {selected_experts.data(),
          topk_weights.data(),
          chunk_counts.data(),
          counts.data(),
          first_rows.data(),
          gather_indices.data(),
          row_of_slot.data(),
          tiles.data(),
          counters.data(),
          finished.data(),
          wide};
}

void RoutingBuffers::verify_guards() const {
  selected_experts.verify_guards();
  topk_weights.verify_guards();
  chunk_counts.verify_guards();
  counts.verify_guards();
  first_rows.verify_guards();
  gather_indices.verify_guards();
  row_of_slot.verify_guards();
  tiles.verify_guards();
  counters.verify_guards();
  finished.verify_guards();
}

void RoutingBuffers::poison() {
  selected_experts.poison();
  topk_weights.poison();
  chunk_counts.poison();
  counts.poison();
  first_rows.poison();
  gather_indices.poison();
  row_of_slot.poison();
  tiles.poison();
  counters.poison();
  finished.poison();
}

void store_field(Candidate& candidate, Field field, const WeightGradientBuffer& buffer, const Sizes& sizes) {
  Tensor tensor(buffer.fp32() ? DType::Float32 : DType::BFloat16, expected_shape(field, sizes));
  ASSAY_CHECK(tensor.size() == buffer.size(), "expected a buffer of the field's size");
  buffer.bytes().download(tensor.bytes().data());
  candidate.fields.set(field, std::move(tensor));
}

void store_routing(Candidate& candidate, const RoutingBuffers& routing, const Sizes& sizes) {
  store_field(candidate, Field::selected_experts, routing.selected_experts, sizes);
  store_field(candidate, Field::topk_weights, routing.topk_weights, sizes);
  store_field(candidate, Field::token_counts_by_expert, routing.counts, sizes);
  store_field(candidate, Field::gather_indices, routing.gather_indices, sizes);
}

Candidate describe_candidate(const std::string& name) {
  cudaDeviceProp device{};
  int id = 0;
  int driver = 0;
  int runtime = 0;
  ASSAY_CUDA(cudaGetDevice(&id));
  ASSAY_CUDA(cudaGetDeviceProperties(&device, id));
  ASSAY_CUDA(cudaDriverGetVersion(&driver));
  ASSAY_CUDA(cudaRuntimeGetVersion(&runtime));
  Candidate candidate;
  candidate.name = name;
  candidate.producer = name;
  candidate.device = device.name;
  candidate.compute_capability = std::to_string(device.major) + "." + std::to_string(device.minor);
  candidate.provenance["cuda_driver_api"] = version_text(driver);
  candidate.provenance["cuda_runtime"] = version_text(runtime);
  return candidate;
}

}  // namespace assay::gpu
