#include "golden/held_tensor.h"

#include <algorithm>

#include <fmt/format.h>

#include "golden/hdf5_attribute.h"
#include "golden/hdf5_dataset.h"
#include "golden/schema.h"
#include "golden/sha256.h"
#include "harness/contract/error.h"
#include "harness/contract/layer.h"
#include "harness/host/json_text.h"

namespace assay {
namespace {

using nlohmann::json;

constexpr const char* kRows = "rows";

std::vector<HeldRows> parse_rows(const std::string& text, const std::string& path) {
  const auto value = parse_json(text);
  std::vector<HeldRows> ranges;
  bool good = value.is_array();
  if (good)
    for (const auto& pair : value) {
      good = good && pair.is_array() && pair.size() == 2 && pair[0].is_number_unsigned() &&
             pair[1].is_number_unsigned();
      if (good) ranges.push_back({pair[0].get<std::int64_t>(), pair[1].get<std::int64_t>()});
    }
  if (!good)
    throw InputError(
        fmt::format("{}: its attribute first_rows is not a JSON list of pairs [first, count]", path));
  return ranges;
}

std::string rows_json(const std::vector<HeldRows>& ranges) {
  json list = json::array();
  for (const auto& range : ranges) list.push_back({range.first, range.count});
  return list.dump();
}

std::string held_hash(std::string_view dtype, const Shape& shape, const std::string& hashes,
                      const std::string& ranges, const std::string& rows) {
  return sha256_hex(
      std::string_view(fmt::format("{} {} {} {} {}", dtype, to_string(shape), hashes, ranges, rows)));
}

}  // namespace

void require_sound(const HeldField& held, const std::string& where) {
  if (held.shape.empty()) throw InputError(fmt::format("{}: a held tensor needs a shape", where));
  const std::int64_t columns = held.shape.back();
  const std::int64_t rows = element_count({held.shape.begin(), held.shape.end() - 1});
  const auto parts = is_hashed_by_expert(held.field) ? static_cast<std::size_t>(held.shape[0]) : 1;
  if (held.sha256.size() != parts)
    throw InputError(fmt::format("{}: expected {} hashes, found {}", where, parts, held.sha256.size()));
  std::int64_t end = 0;
  std::int64_t count = 0;
  for (const auto& range : held.stored) {
    if (range.first < end || range.count < 1 || range.first >= rows || range.count > rows - range.first)
      throw InputError(fmt::format("{}: first_rows must ascend within {} rows, found [{}, {}]", where, rows,
                                   range.first, range.count));
    end = range.first + range.count;
    count += range.count;
  }
  if (held.rows.dtype() != held.dtype || held.rows.shape() != Shape{count, columns})
    throw InputError(fmt::format("{}: expected rows as {} {}, found {} {}", where, row(held.dtype).name,
                                 to_string(Shape{count, columns}), row(held.rows.dtype()).name,
                                 to_string(held.rows.shape())));
}

StoredHeld read_held(const std::shared_ptr<const OpenedFile>& source, const hdf5::StoredObject& group,
                     Field field, const std::string& path, ClaimedSizes& sizes,
                     std::vector<std::string>& remarks) {
  const auto need = [&](auto value, const char* attribute) {
    if (!value)
      throw InputError(fmt::format(
          "{} is a group and lacks the attribute '{}' of a tensor held by its hashes", path, attribute));
    return *value;
  };
  StoredHeld result;
  auto& held = result.held;
  held.field = field;
  const auto dtype = need(hdf5::read_string(group, "dtype", path), "dtype");
  if (may_be_float32(field) && dtype == row(DType::Float32).name) held.dtype = DType::Float32;
  if (dtype != row(held.dtype).name)
    throw InputError(fmt::format("{}: expected dtype '{}', found '{}'", path, row(held.dtype).name, dtype));
  held.shape = need(hdf5::read_shape(group, "shape", path), "shape");
  const auto hashes = need(hdf5::read_string(group, "sha256", path), "sha256");
  const auto ranges = need(hdf5::read_string(group, "first_rows", path), "first_rows");
  held.sha256 = parse_hashes(hashes, path);
  held.stored = parse_rows(ranges, path);
  const std::string rows_path = fmt::format("{}/{}", path, kRows);
  const auto* stored_rows = hdf5::find(group, kRows);
  if (stored_rows == nullptr)
    throw InputError(fmt::format("{} is a group without a dataset {}", path, kRows));
  const auto dataset = hdf5::as_dataset(source, *stored_rows, rows_path);
  sizes.keep(rows_path, dataset.shape, held.dtype);
  auto rows = read_tensor(dataset, held.dtype, WideIntegers::Refuse, remarks);
  held.rows = std::move(rows.tensor);
  require_sound(held, path);
  result.origin = hdf5::read_string(group, "origin", path).value_or("");
  require_origin(result.origin, path);
  result.content_hash = held_hash(dtype, held.shape, hashes, ranges, rows.sha256);
  result.hash_stated = rows.hash_stated;
  return result;
}

std::vector<HeldRows> rows_to_store(const Shape& shape, std::span<const std::int32_t> counts,
                                    std::int64_t rows) {
  const bool matrices = shape.size() == 3;
  const std::int64_t count = std::min(rows, matrices ? shape[1] : shape[0]);
  if (count == 0) return {};
  if (!matrices) return {{0, count}};
  const auto fullest = std::ranges::max_element(counts) - counts.begin();
  const auto empty = std::ranges::find(counts, 0) - counts.begin();
  std::vector<HeldRows> stored = {{fullest * shape[1], count}};
  if (empty < std::ssize(counts) && empty != fullest) stored.push_back({empty * shape[1], count});
  std::ranges::sort(stored, {}, &HeldRows::first);
  return stored;
}

HeldField hold(Field field, const Tensor& tensor, std::vector<HeldRows> stored) {
  const auto values = tensor.bytes();
  const auto columns = static_cast<std::size_t>(tensor.shape().back()) * row(tensor.dtype()).size;
  HeldField held{field, tensor.dtype(), tensor.shape(), {}, std::move(stored), {}};
  held.sha256.resize(is_hashed_by_expert(field) ? static_cast<std::size_t>(tensor.shape()[0]) : 1);
  const std::size_t of_part = held.sha256.empty() ? 0 : values.size() / held.sha256.size();
#pragma omp parallel for schedule(dynamic)
  for (std::size_t part = 0; part < held.sha256.size(); ++part)
    held.sha256[part] = sha256_hex(values.subspan(part * of_part, of_part));
  std::int64_t count = 0;
  for (const auto& range : held.stored) count += range.count;
  held.rows = Tensor(tensor.dtype(), {count, tensor.shape().back()});
  auto out = held.rows.bytes().begin();
  for (const auto& range : held.stored)
    out = std::ranges::copy(values.subspan(static_cast<std::size_t>(range.first) * columns,
                                           static_cast<std::size_t>(range.count) * columns),
                            out)
              .out;
  return held;
}

std::string write_held(const hdf5::Handle& parent, const HeldField& held, const std::string& origin) {
  const std::string field(name(held.field));
  const std::string dtype(row(held.dtype).name);
  require_sound(held, field);
  const auto group = hdf5::create_group(parent, field);
  const auto hashes = hashes_json(held.sha256);
  const auto ranges = rows_json(held.stored);
  const auto rows_hash = sha256_hex(held.rows.bytes());
  hdf5::write_string(group, "dtype", dtype);
  hdf5::write_shape(group, "shape", held.shape);
  hdf5::write_string(group, "origin", origin);
  hdf5::write_string(group, "sha256", hashes);
  hdf5::write_string(group, "first_rows", ranges);
  const auto rows = hdf5::create_dataset(group, kRows, held.dtype, held.rows.shape(), false);
  hdf5::write_all(rows, held.dtype, held.rows.bytes());
  hdf5::write_string(rows, "dtype", dtype);
  hdf5::write_string(rows, "origin", origin);
  hdf5::write_string(rows, "sha256", rows_hash);
  return held_hash(dtype, held.shape, hashes, ranges, rows_hash);
}

std::optional<std::string> stated_content_hash(const std::shared_ptr<const OpenedFile>& source,
                                               const hdf5::StoredObject& group, const std::string& path) {
  const auto dtype = hdf5::read_string(group, "dtype", path);
  const auto shape = hdf5::read_shape(group, "shape", path);
  const auto hashes = hdf5::read_string(group, "sha256", path);
  const auto ranges = hdf5::read_string(group, "first_rows", path);
  const auto* stored_rows = hdf5::find(group, kRows);
  if (!dtype || !shape || !hashes || !ranges || stored_rows == nullptr) return std::nullopt;
  const std::string rows_path = fmt::format("{}/{}", path, kRows);
  const auto rows = hdf5::as_dataset(source, *stored_rows, rows_path).sha256;
  if (!rows) return std::nullopt;
  return held_hash(*dtype, *shape, *hashes, *ranges, *rows);
}

}  // namespace assay
