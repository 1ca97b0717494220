// Golden files, candidate dumps and predictions: one HDF5 file per problem and implementation
// (golden/SCHEMA.md).
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"

namespace assay {

/// How tensors that a file only names come into being. Passed in by the program: this folder knows no
/// generator.
struct Regenerators {
  /// A whole tensor: input_hidden_states, d_hidden_states, gate.
  std::function<Tensor(const Generator&)> tensor;
  /// One expert's matrix of gate_up_proj or down_proj. Called from several threads.
  std::function<ExpertMatrix(const Generator&, Field, std::int64_t expert)> expert;
};

/// A dataset that the schema does not know.
struct UnknownDataset {
  std::string path;             // "/forward/hidden_state"
  std::int64_t non_finite = 0;  // NaN and infinite values, where it holds numbers
};

struct GoldenFile {
  Problem problem;
  Candidate candidate;
  std::vector<UnknownDataset> unknown;
  bool has_inputs = false;               // problem.input, gate and experts are there
  std::map<Field, std::string> origins;  // "captured", "derived", "computed", where the file says so
  std::map<Field, std::vector<std::string>>
      expert_hashes;  // of regenerated weights: reuse them in WriteOptions
};

/// Reads a file and checks everything it states: schema, every SHA-256, shapes and dtypes of inputs and
/// weights; of a golden also that every forward field is there with its shape and dtype. A candidate's fields
/// are kept as they are, to be judged. An expert of regenerated weights is checked against its hash when it
/// is first loaded. Throws InputError.
GoldenFile read_golden(const std::filesystem::path& path, const Regenerators& regenerators);

struct WriteOptions {
  std::map<Field, std::string> origins;  // of fields that are not "computed"
  std::map<Field, std::vector<std::string>>
      expert_hashes;  // of regenerated weights; others are computed over all experts
};

/// Writes problem and results. Inputs and weights that have a generator are named by it, others stored; a
/// candidate or prediction may come without any (`problem.experts` empty). The same arguments give the same
/// bytes. Throws InputError; a failed write leaves nothing behind.
void write_golden(const std::filesystem::path& path, const Problem& problem, const Candidate& candidate,
                  const WriteOptions& options = {});

/// A printable description of any HDF5 file: attributes, and per dataset shape, type, origin, range,
/// non-finite values, hash.
std::string inspect_file(const std::filesystem::path& path);

}  // namespace assay
