// From a dataset as it lies in a file to a tensor of the contract: three layouts of bfloat16, integers of any
// width.
#pragma once

#include <string>
#include <vector>

#include "golden/stored_dataset.h"
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

/// Reads the dataset. bfloat16 may be a 2-byte float, or uint16 or float32 (low halves zero) with
/// dtype="bfloat16"; integers of any width become int32; other floats become float64, exactly. Appends to
/// `remarks` what was unusual. Throws InputError when attributes contradict the data, the hash above all.
StoredTensor read_tensor(hdf5::Dataset dataset, WideIntegers wide, std::vector<std::string>& remarks);

}  // namespace assay
