// The root attributes of a file: what it is, who made it, of which problem.
#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "golden/hdf5_attribute.h"
#include "golden/padded_rows.h"
#include "golden/schema.h"
#include "golden/sha256.h"
#include "harness/contract/error.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/row_order.h"

namespace assay {
namespace {

constexpr const char* kRoot = "the file";

/// Reads root attributes, counts them into the content hash and remembers which optional ones lack.
struct RootReader {
  const hdf5::StoredObject& root;
  ContentHash& content;
  std::string missing;

  std::string required(const char* name) {
    const auto value = hdf5::read_string(root, name, kRoot);
    if (!value) throw InputError(fmt::format("the root attribute '{}' is missing", name));
    content.add_attribute(name, *value);
    return *value;
  }
  std::string optional(const char* name, std::string otherwise = "") {
    const auto value = hdf5::read_string(root, name, kRoot);
    if (value)
      content.add_attribute(name, *value);
    else
      missing += fmt::format("{}{}", missing.empty() ? "" : ", ", name);
    return value.value_or(std::move(otherwise));
  }
  std::int64_t count(const char* name, std::int64_t smallest) {
    const auto value = hdf5::read_int64(root, name, kRoot);
    if (!value) throw InputError(fmt::format("the root attribute '{}' is missing", name));
    if (*value < smallest)
      throw InputError(
          fmt::format("the root attribute '{}' must be at least {}, found {}", name, smallest, *value));
    content.add_attribute(name, std::to_string(*value));
    return *value;
  }
};

void check_version(const std::string& version) {
  const auto* end = version.data() + version.size();
  int major = 0;
  int minor = 0;
  const auto dot = std::from_chars(version.data(), end, major);
  bool well_formed = dot.ec == std::errc() && dot.ptr != end && *dot.ptr == '.';
  if (well_formed) {
    const auto rest = std::from_chars(dot.ptr + 1, end, minor);
    well_formed = rest.ec == std::errc() && rest.ptr == end && minor >= 0;
  }
  if (!well_formed || major != kSchemaMajor)
    throw InputError(
        fmt::format("schema_version: this program reads major version {0} in the form {0}.N, the file "
                    "has '{1}'",
                    kSchemaMajor, version));
}

}  // namespace

Header read_header(const hdf5::StoredObject& root, ContentHash& content) {
  RootReader read{root, content, {}};
  Header header;
  if (!hdf5::read_string(root, "schema", kRoot))
    throw InputError(
        "the root attribute 'schema' is missing: this is no file of assay's; golden/SCHEMA.md says what one "
        "holds, and assay_golden.Candidate (golden/python) writes one");
  const auto schema = read.required("schema");
  if (schema != kSchemaName)
    throw InputError(fmt::format("schema: expected '{}', found '{}'", kSchemaName, schema));
  header.schema_version = read.required("schema_version");
  check_version(header.schema_version);

  auto& candidate = header.candidate;
  candidate.kind = read.required("kind");
  constexpr std::string_view kinds[] = {"golden", "candidate", "predicted"};
  if (std::ranges::find(kinds, candidate.kind) == std::end(kinds))
    throw InputError(
        fmt::format("kind: expected golden, candidate or predicted, found '{}'", candidate.kind));
  candidate.contract = read.required("contract");
  try {
    if (candidate.contract != "auto") find_contract(candidate.contract);
  } catch (const UsageError& error) {
    throw InputError(fmt::format("attribute contract: {}", error.what()));
  }
  header.config = parse_config(read.required("config"));
  header.batch = read.count("batch", 0);
  header.sequence = read.count("sequence", 0);
  // A token count beyond this could overflow the row counts that follow from it.
  constexpr std::int64_t kMostTokens = std::int64_t{1} << 31;
  if (header.batch > kMostTokens || header.sequence > kMostTokens ||
      header.batch * header.sequence > kMostTokens)
    throw InputError(fmt::format("batch x sequence is {} x {}, more than {} tokens", header.batch,
                                 header.sequence, kMostTokens));

  header.fixture = read.optional("fixture");
  if (const auto seed = hdf5::read_uint64(root, "seed", kRoot)) {
    header.seed = *seed;
    content.add_attribute("seed", std::to_string(*seed));
  }
  candidate.accumulators = parse_accumulators(read.optional("accumulators", "{}"));
  candidate.producer = read.optional("producer");
  if (candidate.producer.starts_with("huggingface ")) candidate.accumulators.rest_as_torch = true;
  candidate.device = read.optional("device");
  candidate.compute_capability = read.optional("compute_capability");
  // Written only where it is not "any", so a file without it lacks nothing.
  if (const auto ties = hdf5::read_string(root, "ties", kRoot)) {
    content.add_attribute("ties", *ties);
    try {
      candidate.ties = parse_tie_rule(*ties);
    } catch (const UsageError& error) {
      throw InputError(fmt::format("ties: {}", error.what()));
    }
  }
  if (const auto rows = hdf5::read_string(root, "row_order", kRoot)) {
    content.add_attribute("row_order", *rows);
    try {
      candidate.row_order = parse_row_order(*rows);
    } catch (const UsageError& error) {
      throw InputError(fmt::format("row_order: {}", error.what()));
    }
  }
  if (hdf5::read_int64(root, "row_alignment", kRoot)) {
    header.row_alignment = read.count("row_alignment", 1);
    if (header.row_alignment > kMostRowAlignment || (candidate.kind == "golden" && header.row_alignment > 1))
      throw InputError(
          fmt::format("the root attribute 'row_alignment' must be 1 of a golden and at most {} of "
                      "a candidate, found {}",
                      kMostRowAlignment, header.row_alignment));
  }
  candidate.provenance = parse_strings(read.optional("provenance", "{}"), "attribute provenance");
  if (!read.missing.empty())
    candidate.remarks.push_back(fmt::format("the file does not state {}", read.missing));
  header.content_sha256 = lower_case(hdf5::read_string(root, "content_sha256", kRoot).value_or(""));
  return header;
}

void write_header(const hdf5::Handle& root, const Header& header, ContentHash& content) {
  const auto text = [&](const char* name, const std::string& value) {
    hdf5::write_string(root, name, value);
    content.add_attribute(name, value);
  };
  const auto& candidate = header.candidate;
  text("schema", std::string(kSchemaName));
  text("schema_version", header.schema_version);
  text("kind", candidate.kind);
  text("fixture", header.fixture);
  text("contract", candidate.contract);
  text("accumulators", accumulators_json(candidate.accumulators));
  text("producer", candidate.producer);
  text("device", candidate.device);
  text("compute_capability", candidate.compute_capability);
  if (candidate.ties != TieRule::Any) text("ties", std::string(name(candidate.ties)));
  if (candidate.row_order != ExpertRowOrder::Ascending)
    text("row_order", std::string(name(candidate.row_order)));
  text("config", config_json(header.config));
  text("provenance", strings_json(candidate.provenance));
  hdf5::write_uint64(root, "seed", header.seed);
  content.add_attribute("seed", std::to_string(header.seed));
  hdf5::write_int64(root, "batch", header.batch);
  content.add_attribute("batch", std::to_string(header.batch));
  hdf5::write_int64(root, "sequence", header.sequence);
  content.add_attribute("sequence", std::to_string(header.sequence));
}

}  // namespace assay
