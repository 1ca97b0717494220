// Reading a file of the schema into a problem and a candidate.
#include <algorithm>
#include <memory>
#include <new>
#include <span>

#include <fmt/format.h>

#include "golden/claimed_sizes.h"
#include "golden/described_golden.h"
#include "golden/golden_file.h"
#include "golden/held_tensor.h"
#include "golden/padded_rows.h"
#include "golden/read_gradients.h"
#include "golden/regenerated.h"
#include "golden/schema.h"
#include "golden/sha256.h"
#include "golden/stored_tensor.h"
#include "harness/contract/error.h"
#include "harness/contract/layer.h"
#include "harness/contract/printable.h"

namespace assay {
namespace {

/// Reads one file; its members are what the groups are read into.
class Reader {
 public:
  Reader(std::shared_ptr<const OpenedFile> source, const Header& header, const Regenerators& regenerators,
         ContentHash& content, std::uint64_t memory)
      : source_(std::move(source)),
        regenerators_(regenerators),
        content_(content),
        sizes_(memory),
        config_(header.config),
        batch_(header.batch),
        sequence_(header.sequence),
        row_alignment_(header.row_alignment),
        wide_(header.candidate.kind == "golden" ? WideIntegers::Refuse : WideIntegers::Saturate),
        contract_(header.candidate.contract == "auto" ? kContracts[0]
                                                      : find_contract(header.candidate.contract)) {
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
        unknown(hdf5::as_dataset(source_, group, path));
        continue;
      }
      for (const auto& child : group.children)
        read_child(group.name, path + "/" + child.name, find_field(child.name), child);
    }
    if (missing_hashes_ > 0) remark(fmt::format("{} datasets have no SHA-256", missing_hashes_));
  }

  /// Whether something was neither read nor states its hash: the content hash cannot be checked.
  bool unhashed() const { return unhashed_; }

  GoldenFile finish() {
    auto& problem = file_.problem;
    std::ranges::sort(file_.candidate.held, {}, &HeldField::field);  // the file's order is that of the names
    given_[index(Field::gate_up_proj)] = gate_up_.present();
    given_[index(Field::down_proj)] = down_.present();
    file_.has_inputs = given_[index(Field::input_hidden_states)] && given_[index(Field::gate)] &&
                       gate_up_.present() && down_.present();
    if (gate_up_.present() && down_.present())
      problem.experts = expert_loader(gate_up_, down_, regenerators_.expert);
    if (file_.candidate.kind == "golden")
      require_whole(file_.candidate, given_);
    else if (!file_.has_inputs)
      remark("the file has no complete inputs and weights");
    leave_padding_out(file_.candidate, problem.sizes(), row_alignment_);
    return std::move(file_);
  }

 private:
  static std::size_t index(Field field) { return static_cast<std::size_t>(field); }

  void remark(std::string text) { file_.candidate.remarks.push_back(std::move(text)); }

  hdf5::Dataset unknown(hdf5::Dataset dataset) {
    const bool read = sizes_.spare(element_count(dataset.shape));
    remark(fmt::format("{} is not part of the schema{}", dataset.path,
                       read ? "" : ", and too large to be searched for NaN"));
    file_.unknown.push_back({dataset.path, read ? non_finite_values(dataset) : 0});
    return dataset;
  }

  void read_child(const std::string& group, const std::string& path, std::optional<Field> field,
                  const hdf5::StoredObject& object) {
    if (!object.refusal.empty()) throw InputError(fmt::format("{} {}", path, object.refusal));
    const bool is_group = object.kind == hdf5::ObjectKind::Group;
    const bool oracle = group == kOracleGroup;
    if (group == kPreviousGroup && field && is_weight_gradient(*field)) {
      read_previous(*field, object, path);
      return;
    }
    if (!field || (!oracle && group != name(row(*field).group))) {
      if (is_group) {
        remark(fmt::format("{} is not part of the schema", path));
        file_.unknown.push_back({path, 0});
      }
      const auto hash = is_group ? stated_content_hash(source_, object, path)
                                 : unknown(hdf5::as_dataset(source_, object, path)).sha256;
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
    const auto dataset = hdf5::as_dataset(source_, object, path);
    if (oracle) return read_oracle(*field, dataset);
    try {
      read_field(*field, dataset);
    } catch (const StorageError& error) {
      // Its own results, and nothing else, are wrong where a candidate stores them so.
      const bool given = row(*field).group <= Group::Weights;
      if (given || file_.candidate.kind == "golden")
        throw InputError(fmt::format("{}: {}", path, error.what()));
      misstored(*field, Verdict::WrongDtype, error.what(), dataset);
    }
  }

  void read_field(Field field, const hdf5::Dataset& dataset) {
    const DType wanted = assay::dtype_of(field, contract_);
    const DType dtype = dtype_of(dataset, wanted);
    const auto expected = expected_shape(field, file_.problem.sizes());
    auto padded = expected;
    if (row(field).rows == RowsAre::ExpertOrder)
      padded[0] = most_padded_rows(file_.problem.sizes(), row_alignment_);
    const bool given = row(field).group <= Group::Weights;
    if (given || file_.candidate.kind == "golden") {
      require_form(field, dataset, dtype, wanted);
    } else if (!fits(field, dataset.shape) && !plausible(dataset.shape, padded)) {
      misstored(field, Verdict::WrongShape,
                fmt::format("expected shape {}, found {}, which is not read", to_string(expected),
                            to_string(dataset.shape)),
                dataset);
      return;
    }
    sizes_.keep(dataset.path, dataset.shape, dtype);
    const bool wide = may_be_float32(field) && file_.candidate.kind != "golden";
    auto stored = wide ? read_weight_gradient(dataset, wanted, file_.candidate.remarks)
                       : read_tensor(dataset, wanted, wide_, file_.candidate.remarks);
    content_.add(dataset.path, stored.sha256);
    if (!stored.hash_stated) ++missing_hashes_;
    flatten_tokens(field, stored.tensor);
    if (!stored.origin.empty()) file_.origins[field] = stored.origin;
    place(field, std::move(stored.tensor));
  }

  void read_previous(Field field, const hdf5::StoredObject& object, const std::string& path) {
    auto read = assay::read_previous(source_, object, path, expected_shape(field, file_.problem.sizes()),
                                     regenerators_, sizes_, file_.candidate.remarks);
    content_.add(path, read.content_hash);
    if (!read.hash_stated) ++missing_hashes_;
    file_.problem.previous.set(field, std::move(read.tensor));
    file_.problem.generators[static_cast<std::size_t>(field)] = std::move(read.generator);
  }

  void read_oracle(Field field, const hdf5::Dataset& dataset) {
    const bool integers = row(field).dtype == DType::Int32;
    const auto wanted = integers ? std::optional<DType>() : DType::Float64;
    try {
      const auto dtype = dtype_of(dataset, wanted);
      require_form(field, dataset, dtype, integers ? dtype : DType::Float64);
      sizes_.keep(dataset.path, dataset.shape, dtype);
      auto stored = read_tensor(dataset, wanted, wide_, file_.candidate.remarks);
      content_.add(dataset.path, stored.sha256);
      if (!stored.hash_stated) ++missing_hashes_;
      flatten_tokens(field, stored.tensor);
      file_.candidate.oracle.set(field, std::move(stored.tensor));
    } catch (const StorageError& error) {
      throw InputError(fmt::format("{}: {}", dataset.path, error.what()));
    }
  }

  /// Leaves a field unread: its verdict is known. Its part of the content hash is what the file states.
  void misstored(Field field, Verdict verdict, std::string sentence, const hdf5::Dataset& dataset) {
    file_.candidate.misstored.insert_or_assign(field, Misstored{verdict, std::move(sentence)});
    if (dataset.sha256)
      content_.add(dataset.path, *dataset.sha256);
    else
      unhashed_ = true;
  }

  /// Whether a field of another shape is read and left for the judge to explain: padded rows of experts, say.
  bool plausible(const Shape& found, const Shape& expected) {
    return element_count(found) / 4 <= element_count(expected) || sizes_.spare(element_count(found));
  }

  bool fits(Field field, const Shape& shape) const {
    return shape == expected_shape(field, file_.problem.sizes()) ||
           (has_token_rows(field) && shape == Shape{batch_, sequence_, config_.hidden_size});
  }

  /// Shape and dtype are checked before data are read: a small file must not ask for much memory.
  void require_form(Field field, const hdf5::Dataset& dataset, DType found, DType wanted) const {
    if (found == wanted && fits(field, dataset.shape)) return;
    throw InputError(fmt::format("{}: expected {} {}, found {} {}", dataset.path, row(wanted).name,
                                 to_string(expected_shape(field, file_.problem.sizes())), row(found).name,
                                 to_string(dataset.shape)));
  }

  void read_held_field(Field field, const hdf5::StoredObject& group, const std::string& path) {
    auto stored = read_held(source_, group, field, path, sizes_, file_.candidate.remarks);
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
    sizes_.keep(path, expected, row(field).dtype);
    auto tensor = regenerators_.tensor(stored.generator);
    flatten_tokens(field, tensor);
    if (!stored.hashes.empty() && sha256_hex(tensor.bytes()) != stored.hashes[0])
      throw InputError(
          fmt::format("{}: regenerated with fill '{}', routing '{}', seed {}, stream {}, its SHA-256 is {}, "
                      "the file says {}",
                      path, stored.generator.fill, stored.generator.routing, stored.generator.seed,
                      stored.generator.stream, sha256_hex(tensor.bytes()), stored.hashes[0]));
    require(field, tensor, path);
    place(field, std::move(tensor));
  }

  /// [B, L, H] and [T, H] hold the same rows.
  void flatten_tokens(Field field, Tensor& tensor) {
    if (has_token_rows(field) && tensor.shape() == Shape{batch_, sequence_, config_.hidden_size})
      tensor.reshape({batch_ * sequence_, config_.hidden_size});
  }

  /// Of a regenerated tensor.
  void require(Field field, const Tensor& tensor, const std::string& path) const {
    const auto expected = expected_shape(field, file_.problem.sizes());
    if (tensor.dtype() == row(field).dtype && tensor.shape() == expected) return;
    throw InputError(fmt::format("{}: expected {} {}, found {} {}", path, row(row(field).dtype).name,
                                 to_string(expected), row(tensor.dtype()).name, to_string(tensor.shape())));
  }

  void place(Field field, Tensor tensor) {
    given_[index(field)] = true;
    switch (field) {  // what is given has a member of the problem each, all else is the candidate's
      case Field::input_hidden_states: file_.problem.input = std::move(tensor); break;
      case Field::d_hidden_states: file_.problem.output_gradient = std::move(tensor); break;
      case Field::gate: file_.problem.gate = std::move(tensor); break;
      case Field::gate_up_proj: gate_up_.stored = std::make_shared<const Tensor>(std::move(tensor)); break;
      case Field::down_proj: down_.stored = std::make_shared<const Tensor>(std::move(tensor)); break;
      default: file_.candidate.fields.set(field, std::move(tensor));
    }
  }

  std::shared_ptr<const OpenedFile> source_;
  const Regenerators& regenerators_;
  ContentHash& content_;
  ClaimedSizes sizes_;
  MoeConfig config_;
  std::int64_t batch_;
  std::int64_t sequence_;
  std::int64_t row_alignment_;
  WideIntegers wide_;
  const PrecisionContract& contract_;
  GoldenFile file_;
  WeightSource gate_up_;
  WeightSource down_;
  FieldFlags given_{};
  int missing_hashes_ = 0;
  bool unhashed_ = false;
};

GoldenFile read_described(const hdf5::DescribedFile& file, const Regenerators& regenerators,
                          std::uint64_t memory) {
  require_own_bytes(file.root, file.bytes->size());
  ContentHash content;
  const auto header = read_header(file.root, content);
  Reader reader(file.bytes, header, regenerators, content, memory);
  reader.read_root(file.root);
  if (!header.content_sha256.empty() && !reader.unhashed() && header.content_sha256 != content.hex())
    throw InputError(fmt::format("the content hash of what was read is {}, the file says {}", content.hex(),
                                 header.content_sha256));
  auto result = reader.finish();
  if (header.content_sha256.empty()) result.candidate.remarks.push_back("the file states no content hash");
  return result;
}

}  // namespace

GoldenFile read_golden(const std::filesystem::path& path, const Regenerators& regenerators) {
  return golden_of(hdf5::describe_file(path), path, regenerators, machine_memory());
}

GoldenFile golden_of(const hdf5::DescribedFile& file, const std::filesystem::path& path,
                     const Regenerators& regenerators, std::uint64_t memory) {
  try {
    auto result = read_described(file, regenerators, memory);
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
