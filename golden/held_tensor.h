// Groups that stand for a tensor too large to store (golden/SCHEMA.md): hashes, and some of its rows.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "golden/claimed_sizes.h"
#include "golden/hdf5_handle.h"
#include "golden/stored_tensor.h"
#include "harness/contract/held_field.h"

namespace assay {

struct StoredHeld {
  HeldField held;
  std::string origin;        // "captured", "derived", "computed", or empty when the file does not say
  std::string content_hash;  // the group's part in the content hash
  bool hash_stated = false;  // of the rows
};

/// Reads a group of `source` of the field's name and checks that hashes, shape and rows fit each other. The
/// shape itself is the file's: the caller knows what it must be. Throws InputError.
StoredHeld read_held(const std::shared_ptr<const OpenedFile>& source, const hdf5::StoredObject& group,
                     Field field, const std::string& path, ClaimedSizes& sizes,
                     std::vector<std::string>& remarks);

/// The part in the content hash of a group of a field that this program does not know, from what the file
/// states; nothing when the group holds no tensor.
std::optional<std::string> stated_content_hash(const std::shared_ptr<const OpenedFile>& source,
                                               const hdf5::StoredObject& group, const std::string& path);

/// Throws InputError when what is held does not fit its own shape; `where` names it.
void require_sound(const HeldField& held, const std::string& where);

/// The rows that a file stores of a held tensor, as the exporter chooses them: the first `rows`; of experts'
/// matrices the first ones of the fullest expert's, the first of equals, and of the first one's without rows.
/// `counts` [E]: rows of every expert.
std::vector<HeldRows> rows_to_store(const Shape& shape, std::span<const std::int32_t> counts,
                                    std::int64_t rows);

/// A bf16 tensor of the field's shape held by its hashes, with these rows.
HeldField hold(Field field, const Tensor& tensor, std::vector<HeldRows> stored);

/// Writes a group of the field's name. Returns its part in the content hash.
std::string write_held(const hdf5::Handle& parent, const HeldField& held, const std::string& origin);

}  // namespace assay
