// Reading a file of the schema into a problem and a candidate.
#include <algorithm>
#include <memory>
#include <new>
#include <span>

#include <fmt/format.h>

#include "golden/described_golden.h"
#include "golden/golden_file.h"
#include "golden/held_tensor.h"
#include "golden/regenerated.h"
#include "golden/schema.h"
#include "golden/sha256.h"
#include "golden/stored_tensor.h"
#include "harness/contract/error.h"
#include "harness/contract/printable.h"

namespace assay {
namespace {

/// Reads one file; its members are what the groups are read into.
class Reader {
 public:
  Reader(std::shared_ptr<const OpenedFile> source, const Header& header, const Regenerators& regenerators,
         ContentHash& content)
      : source_(std::move(source)),
        regenerators_(regenerators),
        content_(content),
        config_(header.config),
        batch_(header.batch),
        sequence_(header.sequence),
        wide_(header.candidate.kind == "golden" ? WideIntegers::Refuse : WideIntegers::Saturate) {
    file_.candidate = header.candidate;
    file_.problem.name = header.fixture;
    file_.problem.config = header.config;
    file_.problem.batch = header.batch;
    file_.problem.sequence = header.sequence;
    file_.problem.seed = header.seed;
  }

  void read_root(const hdf5::StoredObject& root) {
    for (const auto& group : root.children) {
      const std::string path = "/" + group.name;
      if (!group.refusal.empty()) throw InputError(fmt::format("{} {}", path, group.refusal));
      if (group.kind != hdf5::ObjectKind::Group) {
        remark(fmt::format("{} is not part of the schema", path));
        continue;
      }
      for (const auto& child : group.children)
        read_child(group.name, path + "/" + child.name, find_field(child.name), child);
    }
    if (missing_hashes_ > 0) remark(fmt::format("{} datasets have no SHA-256", missing_hashes_));
  }

  GoldenFile finish() {
    auto& problem = file_.problem;
    std::ranges::sort(file_.candidate.held, {}, &HeldField::field);  // the file's order is that of the names
    file_.has_inputs = has_input_ && has_gate_ && gate_up_.present() && down_.present();
    if (gate_up_.present() && down_.present())
      problem.experts = expert_loader(gate_up_, down_, regenerators_.expert);
    if (file_.candidate.kind == "golden")
      check_golden();
    else if (!file_.has_inputs)
      remark("the file has no complete inputs and weights");
    return std::move(file_);
  }

 private:
  void remark(std::string text) { file_.candidate.remarks.push_back(std::move(text)); }

  void read_child(const std::string& group, const std::string& path, std::optional<Field> field,
                  const hdf5::StoredObject& object) {
    if (!object.refusal.empty()) throw InputError(fmt::format("{} {}", path, object.refusal));
    const bool is_group = object.kind == hdf5::ObjectKind::Group;
    const bool oracle = group == kOracleGroup;
    if (!field || (!oracle && group != name(row(*field).group))) {
      remark(fmt::format("{} is not part of the schema", path));
      const auto hash = is_group ? stated_content_hash(source_, object, path)
                                 : hdf5::as_dataset(source_, object, path).sha256;
      if (hash) content_.add(path, *hash);
      return;
    }
    if (!oracle && row(*field).group <= Group::Weights && is_group) {
      read_regenerated(*field, object, path);
      return;
    }
    if (!oracle && is_group) {
      read_held_field(*field, object, path);
      return;
    }
    auto stored = read_tensor(hdf5::as_dataset(source_, object, path), wide_, file_.candidate.remarks);
    content_.add(path, stored.sha256);
    if (!stored.hash_stated) ++missing_hashes_;
    flatten_tokens(*field, stored.tensor);
    if (oracle) {
      const DType dtype = row(*field).dtype == DType::Int32 ? stored.tensor.dtype() : DType::Float64;
      require(*field, stored.tensor, dtype, path);
      file_.candidate.oracle.set(*field, std::move(stored.tensor));
      return;
    }
    if (!stored.origin.empty()) file_.origins[*field] = stored.origin;
    place(*field, std::move(stored.tensor), path);
  }

  void read_held_field(Field field, const hdf5::StoredObject& group, const std::string& path) {
    auto stored = read_held(source_, group, field, path, file_.candidate.remarks);
    content_.add(path, stored.content_hash);
    if (!stored.hash_stated) ++missing_hashes_;
    auto& shape = stored.held.shape;
    if (has_token_rows(field) && shape == Shape{batch_, sequence_, config_.hidden_size})
      shape = {batch_ * sequence_, config_.hidden_size};
    const auto expected = expected_shape(field, file_.problem.sizes());
    if (shape != expected)
      throw InputError(
          fmt::format("{}: expected shape {}, found {}", path, to_string(expected), to_string(shape)));
    if (!stored.origin.empty()) file_.origins[field] = stored.origin;
    file_.candidate.held.push_back(std::move(stored.held));
  }

  void read_regenerated(Field field, const hdf5::StoredObject& group, const std::string& path) {
    const auto stored = read_generator(group, path);
    content_.add(path, generator_hash(stored.generator, stored.hashes_json));
    const auto expected = expected_shape(field, file_.problem.sizes());
    const bool by_expert = field == Field::gate_up_proj || field == Field::down_proj;
    const bool by_sequence =
        has_token_rows(field) && stored.generator.shape == Shape{batch_, sequence_, config_.hidden_size};
    if (stored.generator.shape != expected && !by_sequence)
      throw InputError(fmt::format("{}: expected shape {}, found {}", path, to_string(expected),
                                   to_string(stored.generator.shape)));
    const auto hash_count = by_expert ? static_cast<std::size_t>(config_.num_experts) : 1;
    if (!stored.hashes.empty() && stored.hashes.size() != hash_count)
      throw InputError(
          fmt::format("{}: expected {} hashes, found {}", path, hash_count, stored.hashes.size()));
    if (stored.hashes.empty()) remark(fmt::format("{} is regenerated and has no SHA-256", path));

    file_.problem.generators[static_cast<std::size_t>(field)] = stored.generator;
    if (by_expert) {
      file_.expert_hashes[field] = stored.hashes;
      (field == Field::gate_up_proj ? gate_up_ : down_).regenerated = stored;
      return;
    }
    if (!regenerators_.tensor)
      throw InputError(fmt::format("{} is to be regenerated, and no generator is at hand", path));
    auto tensor = regenerators_.tensor(stored.generator);
    flatten_tokens(field, tensor);
    if (!stored.hashes.empty() && sha256_hex(tensor.bytes()) != stored.hashes[0])
      throw InputError(
          fmt::format("{}: regenerated with fill '{}', routing '{}', seed {}, stream {}, its SHA-256 is {}, "
                      "the file says {}",
                      path, stored.generator.fill, stored.generator.routing, stored.generator.seed,
                      stored.generator.stream, sha256_hex(tensor.bytes()), stored.hashes[0]));
    place(field, std::move(tensor), path);
  }

  /// [B, L, H] and [T, H] hold the same rows.
  void flatten_tokens(Field field, Tensor& tensor) {
    if (has_token_rows(field) && tensor.shape() == Shape{batch_, sequence_, config_.hidden_size})
      tensor.reshape({batch_ * sequence_, config_.hidden_size});
  }

  void require(Field field, const Tensor& tensor, DType dtype, const std::string& path) {
    const auto expected = expected_shape(field, file_.problem.sizes());
    if (tensor.dtype() == dtype && tensor.shape() == expected) return;
    throw InputError(fmt::format("{}: expected {} {}, found {} {}", path, row(dtype).name,
                                 to_string(expected), row(tensor.dtype()).name, to_string(tensor.shape())));
  }

  void place(Field field, Tensor tensor, const std::string& path) {
    const bool given = row(field).group <= Group::Weights;
    if (given || file_.candidate.kind == "golden") require(field, tensor, row(field).dtype, path);
    switch (field) {  // what is given has a member of the problem each, all else is the candidate's
      case Field::input_hidden_states:
        file_.problem.input = std::move(tensor);
        has_input_ = true;
        break;
      case Field::d_hidden_states:
        file_.problem.output_gradient = std::move(tensor);
        has_gradient_ = true;
        break;
      case Field::gate:
        file_.problem.gate = std::move(tensor);
        has_gate_ = true;
        break;
      case Field::gate_up_proj: gate_up_.stored = std::make_shared<const Tensor>(std::move(tensor)); break;
      case Field::down_proj: down_.stored = std::make_shared<const Tensor>(std::move(tensor)); break;
      default: file_.candidate.fields.set(field, std::move(tensor));
    }
  }

  void check_golden() {
    std::string missing;
    const auto need = [&](bool present, Field field) {
      if (!present) missing += fmt::format("{}{}", missing.empty() ? "" : ", ", dataset_path(field));
    };
    need(has_input_, Field::input_hidden_states);
    need(has_gate_, Field::gate);
    need(gate_up_.present(), Field::gate_up_proj);
    need(down_.present(), Field::down_proj);
    bool backward = false;
    for (const auto& field : kFields) {
      const auto& candidate = file_.candidate;
      const bool present = candidate.fields.has(field.id) || candidate.held_field(field.id) != nullptr;
      if (field.group == Group::Forward) need(present, field.id);
      backward = backward || (field.group == Group::Backward && present);
    }
    if (backward) need(has_gradient_, Field::d_hidden_states);
    if (!missing.empty()) throw InputError(fmt::format("the golden lacks {}", missing));
  }

  std::shared_ptr<const OpenedFile> source_;
  const Regenerators& regenerators_;
  ContentHash& content_;
  MoeConfig config_;
  std::int64_t batch_;
  std::int64_t sequence_;
  WideIntegers wide_;
  GoldenFile file_;
  WeightSource gate_up_;
  WeightSource down_;
  bool has_input_ = false;
  bool has_gradient_ = false;
  bool has_gate_ = false;
  int missing_hashes_ = 0;
};

GoldenFile read_described(const hdf5::DescribedFile& file, const Regenerators& regenerators) {
  ContentHash content;
  const auto header = read_header(file.root, content);
  Reader reader(file.bytes, header, regenerators, content);
  reader.read_root(file.root);
  if (!header.content_sha256.empty() && header.content_sha256 != content.hex())
    throw InputError(fmt::format("the content hash of what was read is {}, the file says {}", content.hex(),
                                 header.content_sha256));
  auto result = reader.finish();
  if (header.content_sha256.empty()) result.candidate.remarks.push_back("the file states no content hash");
  return result;
}

}  // namespace

GoldenFile read_golden(const std::filesystem::path& path, const Regenerators& regenerators) {
  return golden_of(hdf5::describe_file(path), path, regenerators);
}

GoldenFile golden_of(const hdf5::DescribedFile& file, const std::filesystem::path& path,
                     const Regenerators& regenerators) {
  try {
    auto result = read_described(file, regenerators);
    result.candidate.name = path.string();
    if (result.problem.name.empty()) result.problem.name = path.stem().string();
    return result;
  } catch (const InputError& error) {
    throw InputError(printable(fmt::format("{}: {}", path.string(), error.what())));
  } catch (const std::bad_alloc&) {
    throw InputError(fmt::format("{}: its tensors do not fit in memory", path.string()));
  }
}

}  // namespace assay
