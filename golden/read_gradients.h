// Weight gradients may be float32: a candidate's, and those of before in a file's group /previous.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "golden/claimed_sizes.h"
#include "golden/golden_file.h"
#include "golden/stored_tensor.h"

namespace assay {

/// A candidate's weight gradient. One of more precision than its contract asks for is kept so, for the judge
/// to explain: another contract may be meant. Throws as read_tensor.
StoredTensor read_weight_gradient(const hdf5::Dataset& dataset, DType wanted,
                                  std::vector<std::string>& remarks);

/// A weight gradient of before, stored or regenerated.
struct ReadPrevious {
  Tensor tensor;
  std::optional<Generator> generator;
  std::string content_hash;
  bool hash_stated = false;
};

/// Throws InputError for another shape or dtype, a hash that does not match, or no generator at hand.
ReadPrevious read_previous(const std::shared_ptr<const OpenedFile>& source, const hdf5::StoredObject& object,
                           const std::string& path, const Shape& shape, const Regenerators& regenerators,
                           ClaimedSizes& sizes, std::vector<std::string>& remarks);

}  // namespace assay
