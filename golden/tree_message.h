// A file's description as bytes that one process hands another. The reader of these bytes trusts nothing in
// them.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "golden/stored_object.h"

namespace assay::hdf5 {

/// Groups nest no deeper than this; the schema needs 3.
inline constexpr int kDeepestGroup = 9;

std::string encode(const StoredObject& root);

/// What the child says instead when it cannot read the file.
std::string encode_refusal(const std::string& sentence);

/// The root of the described file. Throws InputError with the child's sentence, or when the bytes are no
/// message.
StoredObject decode(std::span<const std::byte> message);

}  // namespace assay::hdf5
