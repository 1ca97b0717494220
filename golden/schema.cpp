#include "golden/schema.h"

#include <fmt/format.h>

#include "golden/hdf5_attribute.h"
#include "golden/sha256.h"
#include "harness/contract/error.h"
#include "harness/host/json_text.h"

namespace assay {
namespace {

using nlohmann::json;

json parse_object(const std::string& text, const std::string& where) {
  auto value = parse_json(text);
  if (!value.is_object())
    throw InputError(fmt::format("{}: expected a JSON object, found '{}'", where, text.substr(0, 80)));
  return value;
}

void read_member(const json& object, const char* key, std::int64_t& member) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_integer() ||
      (found->is_number_unsigned() && found->get<std::uint64_t>() > INT64_MAX))
    throw InputError(fmt::format("attribute config: expected an integer '{}'", key));
  member = found->get<std::int64_t>();
}

void read_member(const json& object, const char* key, bool& member) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_boolean())
    throw InputError(fmt::format("attribute config: expected a boolean '{}'", key));
  member = found->get<bool>();
}

constexpr const char* kTorch = "torch";

/// JSON text with invalid UTF-8 replaced: provenance may carry a command line of any bytes.
std::string text_of(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

}  // namespace

std::string dataset_path(Field field) { return fmt::format("/{}/{}", name(row(field).group), name(field)); }

bool required_of_golden(Field field) {
  return !given(field) && (field == Field::hidden_states || descends_from(Field::hidden_states, field));
}

void require_whole(const Candidate& golden, const FieldFlags& given) {
  std::string missing;
  bool backward = false;
  for (const auto& field : kFields)
    backward = backward || (field.group == Group::Backward && golden.holds(field.id));
  for (const auto& field : kFields) {
    const bool needed = assay::given(field.id) ? field.id != Field::d_hidden_states || backward
                                               : required_of_golden(field.id);
    const bool present =
        assay::given(field.id) ? given[static_cast<std::size_t>(field.id)] : golden.holds(field.id);
    if (needed && !present)
      missing += fmt::format("{}{}", missing.empty() ? "" : ", ", dataset_path(field.id));
  }
  if (!missing.empty()) throw InputError(fmt::format("the golden lacks {}", missing));
}

std::string previous_path(Field field) { return fmt::format("/{}/{}", kPreviousGroup, name(field)); }

bool has_token_rows(Field field) {
  const auto& shape = row(field).shape;
  return shape[0] == Dim::T && shape[1] == Dim::H;
}

bool is_stored_by_sequence(Field field) {
  return field == Field::input_hidden_states || field == Field::hidden_states;
}

void ContentHash::add_attribute(std::string_view name, std::string_view text) {
  hashes_[fmt::format("@{}", name)] = sha256_hex(text);
}

std::string ContentHash::hex() const {
  std::string lines;
  for (const auto& [key, hash] : hashes_) lines += fmt::format("{} {}\n", key, hash);
  return sha256_hex(std::string_view(lines));
}

std::string generator_hash(const Generator& generator, const std::string& hashes_json) {
  return sha256_hex(std::string_view(fmt::format("{} {} {} {} {} {} {}", generator.fill, generator.routing,
                                                 generator.seed, generator.stream, to_string(generator.shape),
                                                 fmt::format("{:.17g}", generator.scale), hashes_json)));
}

std::string config_json(const MoeConfig& config) {
  json object;
  for_each_member(config, [&](const char* name, const auto& member) { object[name] = member; });
  return text_of(object);
}

MoeConfig parse_config(const std::string& text) {
  const auto object = parse_object(text, "attribute config");
  MoeConfig config;
  for_each_member(config, [&](const char* name, auto& member) { read_member(object, name, member); });
  if (const auto reason = invalid(config)) throw InputError(fmt::format("attribute config: {}", *reason));
  return config;
}

std::string accumulators_json(const Accumulators& accumulators) {
  json object;
  for (const ProductRow& product : kProducts)  // forward ones always, as files without a backward pass do
    if (row(product.made).group == Group::Forward || declared(accumulators[product.id]))
      object[std::string(product.name)] = to_string(accumulators[product.id]);
  if (accumulators.rest_as_torch) object["rest"] = kTorch;
  return text_of(object);
}

Accumulators parse_accumulators(const std::string& text) {
  const auto strings = parse_strings(text, "attribute accumulators");
  Accumulators accumulators;
  for (const ProductRow& product : kProducts) {
    const auto found = strings.find(std::string(product.name));
    if (found == strings.end()) continue;  // unknown
    try {
      accumulators[product.id] = parse_accumulator(found->second);
    } catch (const UsageError& error) {
      throw InputError(fmt::format("attribute accumulators: {}", error.what()));
    }
  }
  const auto rest = strings.find("rest");
  if (rest != strings.end() && rest->second != kTorch)
    throw InputError(
        fmt::format("attribute accumulators: expected rest to be {}, found '{}'", kTorch, rest->second));
  accumulators.rest_as_torch = rest != strings.end();
  return accumulators;
}

std::string strings_json(const std::map<std::string, std::string>& strings) { return text_of(json(strings)); }

std::map<std::string, std::string> parse_strings(const std::string& text, const std::string& where) {
  std::map<std::string, std::string> strings;
  const auto object = parse_object(text, where);
  for (const auto& [key, value] : object.items())
    strings[key] = value.is_string() ? value.get<std::string>() : text_of(value);
  return strings;
}

std::string hashes_json(const std::vector<std::string>& hashes) { return text_of(json(hashes)); }

std::vector<std::string> parse_hashes(const std::string& text, const std::string& where) {
  const auto value = parse_json(text);
  std::vector<std::string> hashes;
  bool good = value.is_array();
  if (good)
    for (const auto& hash : value) {
      good = good && hash.is_string() && hash.get_ref<const std::string&>().size() == 64;
      if (good) hashes.push_back(lower_case(hash.get<std::string>()));
    }
  if (!good)
    throw InputError(fmt::format("{}: its sha256 attribute is not a JSON list of 64-digit hashes", where));
  return hashes;
}

StoredGenerator read_generator(const hdf5::StoredObject& group, const std::string& path) {
  const auto need = [&](auto value, const char* attribute) {
    if (!value)
      throw InputError(
          fmt::format("{} is a group and lacks the attribute '{}' of a regenerated tensor", path, attribute));
    return *value;
  };
  StoredGenerator stored;
  auto& generator = stored.generator;
  generator.fill = need(hdf5::read_string(group, "generator", path), "generator");
  generator.routing = hdf5::read_string(group, "routing", path).value_or("natural");
  generator.seed = need(hdf5::read_uint64(group, "seed", path), "seed");
  generator.stream = need(hdf5::read_uint64(group, "stream", path), "stream");
  generator.shape = need(hdf5::read_shape(group, "shape", path), "shape");
  generator.scale = need(hdf5::read_double(group, "scale", path), "scale");
  const auto dtype = hdf5::read_string(group, "dtype", path).value_or("bfloat16");
  if (dtype != "bfloat16")
    throw InputError(fmt::format("{}: expected dtype 'bfloat16', found '{}'", path, dtype));
  const auto origin = hdf5::read_string(group, "origin", path).value_or("regenerated");
  if (origin != "regenerated")
    throw InputError(fmt::format("{}: expected origin 'regenerated', found '{}'", path, origin));
  stored.hashes_json = hdf5::read_string(group, "sha256", path).value_or("");
  if (!stored.hashes_json.empty()) stored.hashes = parse_hashes(stored.hashes_json, path);
  return stored;
}

void write_generator(const hdf5::Handle& group, const StoredGenerator& stored) {
  hdf5::write_string(group, "generator", stored.generator.fill);
  hdf5::write_string(group, "routing", stored.generator.routing);
  hdf5::write_uint64(group, "seed", stored.generator.seed);
  hdf5::write_uint64(group, "stream", stored.generator.stream);
  hdf5::write_shape(group, "shape", stored.generator.shape);
  hdf5::write_double(group, "scale", stored.generator.scale);
  hdf5::write_string(group, "dtype", "bfloat16");
  hdf5::write_string(group, "origin", "regenerated");
  hdf5::write_string(group, "sha256", stored.hashes_json);
}

}  // namespace assay
