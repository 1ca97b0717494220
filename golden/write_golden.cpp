// Writing a problem and its results as a file of the schema.
#include <algorithm>

#include <fmt/format.h>

#include "golden/golden_file.h"
#include "golden/hdf5_attribute.h"
#include "golden/hdf5_dataset.h"
#include "golden/hdf5_memory.h"
#include "golden/held_tensor.h"
#include "golden/regenerated.h"
#include "golden/schema.h"
#include "golden/sha256.h"
#include "harness/contract/error.h"
#include "harness/contract/layer.h"
#include "harness/host/atomic_file.h"

namespace assay {
namespace {

const std::optional<Generator>& generator_of(const Problem& problem, Field field) {
  return problem.generators[static_cast<std::size_t>(field)];
}

/// A stored or regenerated tensor with the group it goes to.
struct GoldenWriter {
  const Problem& problem;
  const Candidate& candidate;
  const WriteOptions& options;
  ContentHash content;

  std::string origin(Field field) const {
    const auto found = options.origins.find(field);
    return found == options.origins.end() ? "computed" : found->second;
  }

  /// The shape in the file: [B, L, H] for the layer's input and output.
  Shape file_shape(Field field, const Shape& shape) const {
    const auto hidden = problem.config.hidden_size;
    const bool rows_of_tokens = shape == Shape{problem.batch * problem.sequence, hidden};
    return is_stored_by_sequence(field) && rows_of_tokens ? Shape{problem.batch, problem.sequence, hidden}
                                                          : shape;
  }

  HeldField in_file_shape(HeldField held) const {
    held.shape = file_shape(held.field, held.shape);
    return held;
  }

  void dataset(const hdf5::Handle& group, const std::string& path, Field field, const Tensor& tensor,
               const std::string& from) {
    const auto shape = file_shape(field, tensor.shape());
    const bool by_expert = row(field).shape[0] == Dim::E && shape.size() == 3;
    const auto created =
        hdf5::create_dataset(group, std::string(name(field)), tensor.dtype(), shape, by_expert);
    hdf5::write_all(created, tensor.dtype(), tensor.bytes());
    const auto hash = sha256_hex(tensor.bytes());
    hdf5::write_string(created, "dtype", std::string(row(tensor.dtype()).name));
    hdf5::write_string(created, "origin", from);
    hdf5::write_string(created, "sha256", hash);
    content.add(path, hash);
  }

  void regenerated(const hdf5::Handle& parent, const std::string& path, Field field,
                   const Generator& generator, const std::vector<std::string>& hashes) {
    const auto group = hdf5::create_group(parent, std::string(name(field)));
    const StoredGenerator stored{generator, hashes_json(hashes), hashes};
    write_generator(group, stored);
    content.add(path, generator_hash(generator, stored.hashes_json));
  }

  void given(const hdf5::Handle& group, Field field, const Tensor& tensor) {
    if (const auto& generator = generator_of(problem, field)) {
      regenerated(group, dataset_path(field), field, *generator, {sha256_hex(tensor.bytes())});
    } else {
      dataset(group, dataset_path(field), field, tensor, origin(field));
    }
  }

  void expert_weight(const hdf5::Handle& group, Field field, const std::vector<std::string>& hashes) {
    if (const auto& generator = generator_of(problem, field)) {
      regenerated(group, dataset_path(field), field, *generator, hashes);
      return;
    }
    Tensor whole(DType::BFloat16, expected_shape(field, problem.sizes()));
    auto out = whole.as<Bf16>().begin();
    for (std::int64_t expert = 0; expert < problem.config.num_experts; ++expert)
      out = std::ranges::copy(problem.experts(field, expert).values, out).out;
    dataset(group, dataset_path(field), field, whole, origin(field));
  }

  void previous(const hdf5::Handle& root) {
    hdf5::Handle group;
    for (const auto& field : kFields) {
      if (!problem.previous.has(field.id)) continue;
      if (group.get() < 0) group = hdf5::create_group(root, std::string(kPreviousGroup));
      const Tensor& tensor = problem.previous.at(field.id);
      const std::string path = previous_path(field.id);
      if (const auto& generator = generator_of(problem, field.id))
        regenerated(group, path, field.id, *generator, {sha256_hex(tensor.bytes())});
      else
        dataset(group, path, field.id, tensor, "computed");
    }
  }

  void fields(const hdf5::Handle& root, const FieldSet& set, Group which, const std::string& group_name,
              const std::string& from) {
    hdf5::Handle group;
    for (const auto& field : kFields) {
      const bool own = from.empty();  // rather than the oracle's, of which nothing is held
      const auto* const held = own ? candidate.held_field(field.id) : nullptr;
      if ((!set.has(field.id) && held == nullptr) || (own && field.group != which)) continue;
      if (group.get() < 0) group = hdf5::create_group(root, group_name);
      if (held != nullptr) {
        content.add(dataset_path(field.id), write_held(group, in_file_shape(*held), origin(field.id)));
        continue;
      }
      dataset(group, fmt::format("/{}/{}", group_name, field.name), field.id, set.at(field.id),
              from.empty() ? origin(field.id) : from);
    }
  }
};

void require(const Tensor& tensor, Field field, DType dtype, const Sizes& sizes) {
  const auto expected = expected_shape(field, sizes);
  if (tensor.dtype() != dtype || tensor.shape() != expected)
    throw InputError(fmt::format("{}: expected {} {}, found {} {}", name(field), row(dtype).name,
                                 to_string(expected), row(tensor.dtype()).name, to_string(tensor.shape())));
}

/// Whether what the file holds came with the schema's newest minor version.
bool needs_this_version(const Problem& problem, const Candidate& candidate) {
  return problem.has_previous() || std::ranges::any_of(kFields, [&](const FieldRow& field) {
           const auto* const held = candidate.held_field(field.id);
           return (held != nullptr && held->dtype == DType::Float32) ||
                  (candidate.fields.has(field.id) && candidate.fields.at(field.id).dtype() == DType::Float32);
         });
}

/// Without one there is no backward pass. That of no tokens has a shape, and no elements.
bool has_gradient(const Problem& problem) { return problem.output_gradient.shape().size() > 1; }

/// What this writer would refuse to read back. True when the problem has its inputs and weights.
bool check_arguments(const Problem& problem, const Candidate& candidate) {
  if (const auto reason = invalid(problem.config)) throw InputError(*reason);
  const bool golden = candidate.kind == "golden";
  const bool has_inputs = static_cast<bool>(problem.experts);
  if (golden && !has_inputs) throw InputError("a golden needs its inputs and weights");
  if (has_inputs) {
    const Sizes sizes = problem.sizes();
    require(problem.input, Field::input_hidden_states, DType::BFloat16, sizes);
    require(problem.gate, Field::gate, DType::BFloat16, sizes);
    if (has_gradient(problem))
      require(problem.output_gradient, Field::d_hidden_states, DType::BFloat16, sizes);
  }
  const PrecisionContract& contract =
      candidate.contract == "auto" ? kContracts[0] : find_contract(candidate.contract);
  for (const auto& field : kFields) {
    const bool present = candidate.fields.has(field.id);
    const auto* const held = candidate.held_field(field.id);
    if (held != nullptr) {
      if (present || field.group < Group::Forward)
        throw InputError(fmt::format("{} is held by its hashes and present, or given", field.name));
      require_sound(*held, std::string(field.name));
      if (held->shape != expected_shape(field.id, problem.sizes()))
        throw InputError(fmt::format("{}: expected shape {}, found {}", field.name,
                                     to_string(expected_shape(field.id, problem.sizes())),
                                     to_string(held->shape)));
    }
    if (golden && required_of_golden(field.id) && !present && held == nullptr)
      throw InputError(fmt::format("a golden needs {}", field.name));
    if (present && (golden || field.group <= Group::Weights))
      require(candidate.fields.at(field.id), field.id, dtype_of(field.id, contract), problem.sizes());
    if (problem.previous.has(field.id)) {
      const bool wide = problem.previous.at(field.id).dtype() == DType::Float32;
      require(problem.previous.at(field.id), field.id, wide ? DType::Float32 : DType::BFloat16,
              problem.sizes());
    }
    if (candidate.oracle.has(field.id) &&
        candidate.oracle.at(field.id).shape() != expected_shape(field.id, problem.sizes()))
      throw InputError(fmt::format("oracle {}: expected shape {}, found {}", field.name,
                                   to_string(expected_shape(field.id, problem.sizes())),
                                   to_string(candidate.oracle.at(field.id).shape())));
  }
  return has_inputs;
}

std::size_t payload_bytes(const FieldSet& set) {
  std::size_t bytes = 0;
  for (const auto& field : kFields)
    if (set.has(field.id)) bytes += set.at(field.id).bytes().size();
  return bytes;
}

}  // namespace

void write_golden(const std::filesystem::path& path, const Problem& problem, const Candidate& candidate,
                  const WriteOptions& options) {
  const bool has_inputs = check_arguments(problem, candidate);
  // Hashing a layer's experts takes seconds on all cores; it needs no HDF5 and happens outside its lock.
  std::map<Field, std::vector<std::string>> hashes;
  for (const Field field : {Field::gate_up_proj, Field::down_proj}) {
    if (!has_inputs || !generator_of(problem, field)) continue;
    const auto known = options.expert_hashes.find(field);
    const auto expected = static_cast<std::size_t>(problem.config.num_experts);
    hashes[field] = known != options.expert_hashes.end() && known->second.size() == expected
                        ? known->second
                        : expert_hashes(problem.experts, field, problem.config.num_experts);
  }

  hdf5::Image image;
  {
    const auto lock = hdf5::lock();
    hdf5::MemoryFile file(payload_bytes(candidate.fields) + payload_bytes(candidate.oracle) +
                          payload_bytes(problem.previous));
    const auto root = hdf5::open_root(file.handle());
    GoldenWriter write{problem, candidate, options, {}};
    Header header;
    if (!needs_this_version(problem, candidate)) header.schema_version = kPlainVersion;
    header.fixture = problem.name;
    header.seed = problem.seed;
    header.config = problem.config;
    header.batch = problem.batch;
    header.sequence = problem.sequence;
    header.candidate.kind = candidate.kind;
    header.candidate.contract = candidate.contract;
    header.candidate.accumulators = candidate.accumulators;
    header.candidate.ties = candidate.ties;
    header.candidate.row_order = candidate.row_order;
    header.candidate.producer = candidate.producer;
    header.candidate.device = candidate.device;
    header.candidate.compute_capability = candidate.compute_capability;
    header.candidate.provenance = candidate.provenance;
    write_header(root, header, write.content);
    if (has_inputs) {
      const auto inputs = hdf5::create_group(root, "inputs");
      write.given(inputs, Field::input_hidden_states, problem.input);
      if (has_gradient(problem)) write.given(inputs, Field::d_hidden_states, problem.output_gradient);
      const auto weights = hdf5::create_group(root, "weights");
      write.given(weights, Field::gate, problem.gate);
      write.expert_weight(weights, Field::gate_up_proj, hashes[Field::gate_up_proj]);
      write.expert_weight(weights, Field::down_proj, hashes[Field::down_proj]);
    }
    write.previous(root);
    write.fields(root, candidate.fields, Group::Forward, "forward", "");
    write.fields(root, candidate.fields, Group::Backward, "backward", "");
    write.fields(root, candidate.oracle, Group::Forward, std::string(kOracleGroup), "computed");
    hdf5::write_string(root, "content_sha256", write.content.hex());
    image = file.finish();
  }
  const auto bytes = image.bytes();
  write_file_atomically(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

}  // namespace assay
