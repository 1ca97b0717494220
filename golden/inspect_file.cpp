// A printable description of an HDF5 file, of the schema or not: what `assay inspect` shows.
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include <fmt/format.h>

#include "golden/golden_file.h"
#include "golden/hdf5_attribute.h"
#include "golden/held_tensor.h"
#include "golden/schema.h"
#include "golden/stored_tensor.h"
#include "harness/contract/error.h"

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
    case DType::Float64:
      for (const auto value : tensor.as<double>()) statistics.add(value);
      break;
  }
  return statistics;
}

/// Any attribute as text, cut to a line.
std::string attribute_text(const hdf5::Handle& object, const std::string& name, const std::string& where) {
  constexpr std::size_t kLongest = 160;
  const auto attempt = [&](const auto& read) -> std::optional<std::string> {
    try {
      return read();
    } catch (const InputError&) {
      return std::nullopt;
    }
  };
  const char* key = name.c_str();
  auto text = attempt([&] { return *hdf5::read_string(object, key, where); });
  if (!text) text = attempt([&] { return fmt::format("{}", *hdf5::read_uint64(object, key, where)); });
  if (!text) text = attempt([&] { return fmt::format("{}", *hdf5::read_int64(object, key, where)); });
  if (!text) text = attempt([&] { return fmt::format("{:.17g}", *hdf5::read_double(object, key, where)); });
  if (!text) text = attempt([&] { return to_string(*hdf5::read_shape(object, key, where)); });
  if (!text) return "(another type)";
  std::ranges::replace(*text, '\n', ' ');
  return text->size() <= kLongest
             ? *text
             : fmt::format("{}... ({} characters)", text->substr(0, kLongest), text->size());
}

class Inspector {
 public:
  void attributes(const hdf5::Handle& object, const std::string& path, const char* indent) {
    for (const auto& name : hdf5::attribute_names(object, path))
      text_ += fmt::format("{}{} = {}\n", indent, name, attribute_text(object, name, path));
  }

  void group(const hdf5::Handle& group, const std::string& path, int depth) {
    constexpr int kDeepest = 8;  // links may form a circle
    for (const auto& name : hdf5::children(group, path)) {
      const auto child_path = fmt::format("{}{}{}", path, path == "/" ? "" : "/", name);
      auto child = hdf5::open_object(group, name, child_path);
      if (hdf5::type_of(child) == H5I_DATASET) {
        dataset(std::move(child), child_path);
      } else if (hdf5::type_of(child) == H5I_GROUP && depth < kDeepest) {
        const bool regenerated = hdf5::read_string(child, "generator", child_path).has_value();
        const bool held = hdf5::read_string(child, "first_rows", child_path).has_value();
        text_ += fmt::format("{}{}\n", child_path,
                             regenerated ? "  regenerated:"
                             : held      ? "  held by its hashes:"
                                         : "/");
        attributes(child, child_path, "    ");
        if (regenerated) regenerated_hash(child, child_path);
        if (held) held_hash_of(child, name, child_path);
        this->group(child, child_path, depth + 1);
      } else {
        text_ += fmt::format("{}  neither group nor dataset\n", child_path);
      }
    }
  }

  void content(const hdf5::Handle& root) {
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

  std::string take() { return std::move(text_); }

 private:
  void dataset(hdf5::Handle object, const std::string& path) {
    text_ += path;
    try {
      auto dataset = hdf5::as_dataset(std::move(object), path);
      text_ += fmt::format("  {} {}", dataset.stored_name(), to_string(dataset.shape));
      if (dataset.dtype && *dataset.dtype != dataset.stored_name())
        text_ += fmt::format(" as {}", *dataset.dtype);
      if (dataset.origin) text_ += fmt::format(", {}", *dataset.origin);
      std::vector<std::string> remarks;
      const auto stored = read_tensor(std::move(dataset), WideIntegers::Saturate, remarks);
      if (!held_rows_.contains(path)) content_.add(path, stored.sha256);
      text_ += fmt::format(", {}, hash {}\n", statistics_of(stored.tensor).text(),
                           stored.hash_stated ? "ok" : "not stated");
    } catch (const InputError& error) {
      text_ += fmt::format(", BROKEN: {}\n", error.what());
    }
  }

  void regenerated_hash(const hdf5::Handle& group, const std::string& path) {
    try {
      const auto stored = read_generator(group, path);
      content_.add(path, generator_hash(stored.generator, stored.hashes_json));
    } catch (const InputError& error) {
      text_ += fmt::format("    BROKEN: {}\n", error.what());
    }
  }

  void held_hash_of(const hdf5::Handle& group, const std::string& field, const std::string& path) {
    held_rows_.insert(path + "/rows");
    try {
      std::vector<std::string> remarks;
      const auto known = find_field(field);
      const auto hash = known ? std::optional(read_held(group, *known, path, remarks).content_hash)
                              : stated_content_hash(group, path);
      if (hash) content_.add(path, *hash);
    } catch (const InputError& error) {
      text_ += fmt::format("    BROKEN: {}\n", error.what());
    }
  }

  std::string text_;
  ContentHash content_;
  std::set<std::string> held_rows_;  // part of their group's hash, not of the content by themselves
};

}  // namespace

std::string inspect_file(const std::filesystem::path& path) {
  const auto lock = hdf5::lock();
  const auto file = hdf5::open_file(path);
  const auto root = hdf5::open_object(file, "/", "/");
  Inspector inspector;
  inspector.attributes(root, "/", "");
  inspector.group(root, "/", 0);
  inspector.content(root);
  return fmt::format("{}, {} bytes\n{}", path.string(), std::filesystem::file_size(path), inspector.take());
}

}  // namespace assay
