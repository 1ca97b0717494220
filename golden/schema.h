// The names and texts of the file schema (golden/SCHEMA.md), shared by reader and writer.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "golden/hdf5_handle.h"
#include "golden/stored_object.h"
#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"

namespace assay {

inline constexpr std::string_view kSchemaName = "assay";
inline constexpr std::string_view kSchemaVersion = "1.2";
inline constexpr std::string_view kPlainVersion = "1.1";  // of files without /previous and float32 fields
inline constexpr int kSchemaMajor = 1;
inline constexpr std::string_view kOracleGroup = "oracle";
inline constexpr std::string_view kPreviousGroup = "previous";  // weight gradients of before

/// "/forward/router_logits", "/weights/gate", ...
std::string dataset_path(Field field);
/// "/previous/d_gate", ...
std::string previous_path(Field field);

/// Whether every golden has the field: all that the layer's output is made of. Others may be missing: older
/// goldens lack what was added since.
bool required_of_golden(Field field);
/// Throws InputError naming what the golden lacks; `given`: the inputs and weights that its file has.
void require_whole(const Candidate& golden, const FieldFlags& given);

/// Fields of which a file's leading [T] may be [B, L]; those the writer writes that way.
bool has_token_rows(Field field);
bool is_stored_by_sequence(Field field);

/// The digest over a whole file: SHA-256 of the sorted lines "<key> <hash>\n".
class ContentHash {
 public:
  void add(const std::string& key, const std::string& hash) { hashes_[key] = hash; }
  /// A root attribute: key "@name", hash of its text.
  void add_attribute(std::string_view name, std::string_view text);
  std::string hex() const;

 private:
  std::map<std::string, std::string> hashes_;
};

/// A regenerated tensor's part in the content hash. `hashes_json` is the text of its sha256 attribute.
std::string generator_hash(const Generator& generator, const std::string& hashes_json);

/// The JSON texts of the root attributes. The readers throw InputError naming the key that is missing or
/// wrong.
std::string config_json(const MoeConfig& config);
MoeConfig parse_config(const std::string& text);
std::string accumulators_json(const Accumulators& accumulators);
Accumulators parse_accumulators(const std::string& text);
std::string strings_json(const std::map<std::string, std::string>& strings);
std::map<std::string, std::string> parse_strings(const std::string& text, const std::string& where);
std::string hashes_json(const std::vector<std::string>& hashes);
std::vector<std::string> parse_hashes(const std::string& text, const std::string& where);

/// What the root attributes say, apart from `content_sha256`.
struct Header {
  std::string schema_version{kSchemaVersion};
  std::string fixture;
  std::uint64_t seed = 0;
  MoeConfig config;
  std::int64_t batch = 1;
  std::int64_t sequence = 0;
  std::int64_t row_alignment = 1;  // in the file, every expert's rows begin at a multiple of it
  Candidate candidate;             // its plain members; no fields
  std::string content_sha256;      // empty when the file states none
};

/// Reads the root attributes and adds them to `content`. Throws InputError on an unknown schema, major
/// version, kind, contract or accumulator, or a required attribute that is missing; the optional ones that
/// are missing become remarks.
Header read_header(const hdf5::StoredObject& root, ContentHash& content);

/// Writes the root attributes except `content_sha256`, and adds them to `content`.
void write_header(const hdf5::Handle& root, const Header& header, ContentHash& content);

/// Attributes of a group that stands for a regenerated tensor.
struct StoredGenerator {
  Generator generator;
  std::string hashes_json;
  std::vector<std::string> hashes;  // one per expert, or one; empty when the file has none
};
StoredGenerator read_generator(const hdf5::StoredObject& group, const std::string& path);
void write_generator(const hdf5::Handle& group, const StoredGenerator& stored);

}  // namespace assay
