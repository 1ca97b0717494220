// A printable description of an HDF5 file, of the schema or not: what `assay inspect` shows.
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include <fmt/format.h>

#include "golden/golden_file.h"
#include "golden/held_tensor.h"
#include "golden/schema.h"
#include "golden/sealed_reader.h"
#include "golden/stored_tensor.h"
#include "harness/contract/error.h"
#include "harness/contract/printable.h"

namespace assay {
namespace {

/// Range of the finite values, and how many are not.
struct ValueRange {
  double smallest = std::numeric_limits<double>::infinity();
  double largest = -std::numeric_limits<double>::infinity();
  std::int64_t nans = 0;
  std::int64_t infinities = 0;

  void add(double value) {
    if (std::isnan(value)) {
      ++nans;
    } else if (std::isinf(value)) {
      ++infinities;
    } else {
      smallest = std::min(smallest, value);
      largest = std::max(largest, value);
    }
  }
  std::string text() const {
    if (smallest > largest) return fmt::format("no finite value, nan {}, inf {}", nans, infinities);
    return fmt::format("min {:.6g}, max {:.6g}, absmax {:.6g}, nan {}, inf {}", smallest, largest,
                       std::max(std::fabs(smallest), std::fabs(largest)), nans, infinities);
  }
};

ValueRange statistics_of(const Tensor& tensor) {
  ValueRange statistics;
  switch (tensor.dtype()) {
    case DType::BFloat16:
      for (const auto value : tensor.as<Bf16>()) statistics.add(to_float(value));
      break;
    case DType::Int32:
      for (const auto value : tensor.as<std::int32_t>()) statistics.add(value);
      break;
    case DType::Float32:
      for (const auto value : tensor.as<float>()) statistics.add(value);
      break;
    case DType::Float64:
      for (const auto value : tensor.as<double>()) statistics.add(value);
      break;
  }
  return statistics;
}

/// Any attribute as text, cut to a line.
std::string line_of(const hdf5::StoredAttribute& attribute) {
  constexpr std::size_t kLongest = 160;
  auto text = hdf5::attribute_text(attribute);
  std::ranges::replace(text, '\n', ' ');
  text = printable(text);
  return text.size() <= kLongest
             ? text
             : fmt::format("{}... ({} characters)", text.substr(0, kLongest), text.size());
}

class Inspector {
 public:
  explicit Inspector(std::shared_ptr<const OpenedFile> source) : source_(std::move(source)) {}

  void attributes(const hdf5::StoredObject& object, const char* indent) {
    for (const auto& attribute : object.attributes)
      text_ += fmt::format("{}{} = {}\n", indent, printable(attribute.name), line_of(attribute));
  }

  void group(const hdf5::StoredObject& group, const std::string& path) {
    for (const auto& child : group.children) {
      const auto child_path = fmt::format("{}{}{}", path, path == "/" ? "" : "/", child.name);
      if (child.kind == hdf5::ObjectKind::Dataset) {
        dataset(child, child_path);
      } else if (!child.refusal.empty()) {
        text_ += fmt::format("{}  {}\n", printable(child_path), child.refusal);
      } else {
        const auto states = [&](const char* name) {
          return std::ranges::find(child.attributes, name, &hdf5::StoredAttribute::name) !=
                 child.attributes.end();
        };
        const bool regenerated = states("generator");
        const bool held = states("first_rows");
        text_ += fmt::format("{}{}\n", printable(child_path),
                             regenerated ? "  regenerated:"
                             : held      ? "  held by its hashes:"
                                         : "/");
        attributes(child, "    ");
        if (regenerated) regenerated_hash(child, child_path);
        if (held) held_hash_of(child, child.name, child_path);
        this->group(child, child_path);
      }
    }
  }

  void content(const hdf5::StoredObject& root) {
    try {
      const auto header = read_header(root, content_);
      const bool stated = !header.content_sha256.empty();
      const auto found = content_.hex();
      text_ += !stated ? "content hash: not stated\n"
               : found == header.content_sha256
                   ? "content hash: ok\n"
                   : fmt::format("content hash: WRONG, what was read has {}\n", found);
    } catch (const InputError& error) {
      text_ += fmt::format("not a file of the schema: {}\n", error.what());
    }
  }

  /// Every text of the file in it was made printable; this is for those inside other sentences.
  std::string take() { return printable(text_, true); }

 private:
  void dataset(const hdf5::StoredObject& object, const std::string& path) {
    text_ += printable(path);
    try {
      auto dataset = hdf5::as_dataset(source_, object, path);
      text_ += fmt::format("  {} {}", dataset.stored_name(), to_string(dataset.shape));
      if (dataset.dtype && *dataset.dtype != dataset.stored_name())
        text_ += fmt::format(" as {}", *dataset.dtype);
      if (dataset.origin) text_ += fmt::format(", {}", *dataset.origin);
      std::vector<std::string> remarks;
      ClaimedSizes().keep(path, dataset.shape, dtype_of(dataset, std::nullopt));  // one at a time
      const auto stored = read_tensor(dataset, std::nullopt, WideIntegers::Saturate, remarks);
      if (!held_rows_.contains(path)) content_.add(path, stored.sha256);
      text_ += fmt::format(", {}, hash {}\n", statistics_of(stored.tensor).text(),
                           stored.hash_stated ? "ok" : "not stated");
    } catch (const InputError& error) {
      text_ += fmt::format(", BROKEN: {}\n", error.what());
    }
  }

  void regenerated_hash(const hdf5::StoredObject& group, const std::string& path) {
    try {
      const auto stored = read_generator(group, path);
      content_.add(path, generator_hash(stored.generator, stored.hashes_json));
    } catch (const InputError& error) {
      text_ += fmt::format("    BROKEN: {}\n", error.what());
    }
  }

  void held_hash_of(const hdf5::StoredObject& group, const std::string& field, const std::string& path) {
    held_rows_.insert(path + "/rows");
    try {
      std::vector<std::string> remarks;
      ClaimedSizes sizes;
      const auto known = find_field(field);
      const auto hash =
          known ? std::optional(read_held(source_, group, *known, path, sizes, remarks).content_hash)
                : stated_content_hash(source_, group, path);
      if (hash) content_.add(path, *hash);
    } catch (const InputError& error) {
      text_ += fmt::format("    BROKEN: {}\n", error.what());
    }
  }

  std::shared_ptr<const OpenedFile> source_;
  std::string text_;
  ContentHash content_;
  std::set<std::string> held_rows_;  // part of their group's hash, not of the content by themselves
};

}  // namespace

std::string inspect_file(const std::filesystem::path& path) {
  const auto file = hdf5::describe_file(path);
  require_own_bytes(file.root, file.bytes->size());
  Inspector inspector(file.bytes);
  inspector.attributes(file.root, "");
  inspector.group(file.root, "/");
  inspector.content(file.root);
  return fmt::format("{}, {} bytes\n{}", printable(path.string()), file.bytes->size(), inspector.take());
}

}  // namespace assay
