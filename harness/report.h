// The result of a verification as one value. Renderers print it; the exit code is derived from its verdicts only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "harness/field.h"
#include "harness/verdict.h"

namespace assay {

/// One element with everything needed to argue about it.
struct Element {
  std::vector<std::pair<std::string, std::int64_t>> at;  // axis name, index: {"row", 17}, {"col", 3}, {"expert", 5}, {"token", 2}
  double out = 0.0;        // the candidate's value
  double ref = 0.0;        // the reference before its last rounding
  double low = 0.0;        // smallest accepted stored value
  double high = 0.0;       // largest accepted stored value
  double delta = 0.0;      // error that accumulation and elementary functions allow, before the last rounding
  double magnitude = 0.0;  // sum of |a||b| behind the bound; 0 where there is no product
  double ratio = 0.0;      // |out - ref| / (delta + ulp(out) / 2)
  std::uint32_t out_bits = 0;
  std::uint32_t ref_bits = 0;  // the reference, rounded
  std::int64_t ulps = 0;       // bf16 neighbours between out and the rounded reference
};

/// One way of judging a field (isolated or chained).
struct Judgement {
  Verdict verdict = Verdict::NotMaterialised;
  std::int64_t elements = 0;
  std::int64_t rejected = 0;    // outside the accepted interval
  std::int64_t non_finite = 0;
  std::int64_t mismatched = 0;  // bits differ from the rounded reference: information, not a verdict
  double max_ratio = 0.0;
  std::optional<Element> worst;  // largest ratio, or the first rejected exact element
  std::vector<std::pair<std::int64_t, double>> worst_by_expert;  // expert, max ratio; fields with rows of experts only
};

/// Predicted bits of one field.
struct Prediction {
  bool available = false;       // the producer is a Hopper GPU, or an accumulator is declared
  bool binding = false;         // an accumulator is declared: a difference is Suspect
  std::int64_t elements = 0;
  std::int64_t as_predicted = 0;
  std::int64_t undetermined = 0;
  std::int64_t differing = 0;
  std::string accumulator;      // what was assumed: "hopper", "hopper_split(2048, 2048)"
  std::optional<Element> first;  // the first differing element; `ref` is the predicted value
  std::string cause;            // why it differs, when one hypothesis explains it
};

/// One hypothesis about what went wrong, fitted to the error.
struct Cause {
  std::string hypothesis;  // short id: "k_block_dropped", "bf16_accumulation"
  std::string sentence;    // "the last 64 of K are missing for expert 17"
  double explained = 0.0;  // 1 - sum (out - hypothesis)^2 / sum (out - ref)^2 over the elements looked at; at most 1
  bool every_bit = false;  // it gives every bit of the elements looked at
};

struct FieldResult {
  Field field{};
  Verdict verdict = Verdict::NotMaterialised;  // the worst of the parts
  std::string origin;                          // "captured", "derived", "computed"
  std::string upstream;                        // what the isolated check started from, when it is a composite edge
  Judgement isolated;
  Judgement chained;
  Prediction isolated_bits;
  Prediction chained_bits;
  std::vector<Cause> causes;       // of an error of its own, best first
  std::vector<std::string> notes;  // "expected shape [16, 128], found [16, 64]"
};

/// A token whose selected experts differ from the reference's, legally or not.
struct RoutingFlip {
  std::int64_t token = 0;
  std::vector<std::int64_t> candidate_only;
  std::vector<std::int64_t> reference_only;
  double gap = 0.0;    // between the logits exchanged
  double bound = 0.0;  // gap that the errors of both logits allow
  bool admissible = false;
};

/// One candidate judged on one problem.
struct CaseResult {
  std::string problem;    // "qwen3_30b_a3b"
  std::string candidate;  // "golden/qwen3_30b_a3b.grouped_mm.h5", "gpu_fused"
  std::string producer;
  std::string device;
  std::string contract;
  std::string accumulators;  // "router hopper, gate_up hopper, down hopper"
  MoeConfig config;
  std::int64_t tokens = 0;
  std::uint64_t seed = 0;
  Verdict verdict = Verdict::NotMaterialised;
  std::string headline;  // one sentence: verdict and first stage with an error of its own
  std::optional<Field> first_own_error;
  std::vector<FieldResult> fields;         // in the order of the field table
  std::vector<std::int64_t> expert_load;   // rows per expert
  std::vector<RoutingFlip> flips;
  std::vector<std::string> remarks;
  std::string replay;      // command line that repeats this case
  double seconds = 0.0;
  std::int64_t multiply_adds = 0;  // of one forward pass over the products
};

struct Report {
  std::string title;
  std::string command;
  std::string created;  // UTC, ISO 8601
  std::vector<std::pair<std::string, std::string>> environment;  // "assay" revision, compiler, CPU, threads, libraries
  std::vector<CaseResult> cases;
  double seconds = 0.0;
  std::int64_t peak_memory_bytes = 0;

  Verdict verdict() const {
    Verdict all = Verdict::NotMaterialised;
    for (const auto& one : cases) all = worst(all, one.verdict);
    return all;
  }
};

}  // namespace assay
