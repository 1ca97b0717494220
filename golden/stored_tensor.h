// From a dataset as it lies in a file to a tensor of the contract: three layouts of bfloat16, integers of any
// width.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "golden/stored_dataset.h"
#include "harness/contract/error.h"
#include "harness/contract/tensor.h"

namespace assay {

/// A dataset read, checked against its own attributes.
struct StoredTensor {
  Tensor tensor;
  std::string path;
  std::string origin;  // "captured", "derived", "computed", or empty when the file does not say
  std::string sha256;  // of the bytes as stored
  bool hash_stated = false;
};

/// Throws InputError when the text is none of the origins of golden/SCHEMA.md, or empty.
void require_origin(const std::string& origin, const std::string& path);

/// What to do with an index outside int32: a golden's is an error; a candidate's is kept at the nearest
/// int32, to be judged.
enum class WideIntegers { Refuse, Saturate };

/// The elements are of a type that the field may not have: what is there, and how to store it instead.
/// Without the dataset's path.
struct StorageError : InputError {
  using InputError::InputError;
};

/// Reads the dataset as `wanted`, or as the dtype of the contract nearest to what is stored. bfloat16 may be
/// a 2-byte float, or uint16, or float32 whose low halves are zero; integers of any width and byte order
/// become int32. Appends to `remarks` what was unusual. Throws StorageError where elements cannot be `wanted`
/// nor are another dtype of the contract, InputError when attributes contradict the data, the hash above all.
StoredTensor read_tensor(const hdf5::Dataset& dataset, std::optional<DType> wanted, WideIntegers wide,
                         std::vector<std::string>& remarks);

/// Throws StorageError where read_tensor would, as far as the type alone tells. Reads nothing.
DType dtype_of(const hdf5::Dataset& dataset, std::optional<DType> wanted);

/// NaN and infinite values of a dataset that the schema does not know; 0 where it holds no numbers.
std::int64_t non_finite_values(const hdf5::Dataset& dataset);

}  // namespace assay
