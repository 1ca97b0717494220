// The result of a verification as one value. Renderers print it; the exit code is derived from its verdicts
// only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/contract/cause.h"
#include "harness/contract/error_map.h"
#include "harness/contract/field.h"
#include "harness/contract/verdict.h"

namespace assay {

/// One element with everything needed to argue about it.
struct Element {
  std::vector<std::pair<std::string, std::int64_t>>
      at;                 // axis name, index: {"row", 17}, {"col", 3}, {"expert", 5}, {"token", 2}
  double out = 0.0;       // the candidate's value
  double ref = 0.0;       // the reference before its last rounding
  double low = 0.0;       // smallest accepted stored value
  double high = 0.0;      // largest accepted stored value
  double delta = 0.0;     // error that accumulation and elementary functions allow, before the last rounding:
                          // the bound in force
  double a_priori = 0.0;  // the bound for any order of summation; 0: not known
  double running = 0.0;   // the bound for the declared order; 0: there is none
  double magnitude = 0.0;  // sum of |a||b| behind the bound; 0 where there is no product
  double ratio = 0.0;      // |out - ref| / (delta + ulp(out) / 2)
  std::uint32_t out_bits = 0;
  std::uint32_t ref_bits = 0;  // the reference, rounded
  std::int64_t ulps = 0;       // bf16 neighbours between out and the rounded reference
};

/// One statistical test (harness/judge/statistics.h): what was observed, what legal implementations show at
/// most on average, and where that becomes too improbable. Of a family of tests (every expert, every tile)
/// the worst member is shown.
struct StatisticalTest {
  std::string measure;        // "flipped bits", "excess energy", "bias", "routing flips", "suspicious flips"
  std::string over;           // "the field", "expert 17", "rows 0 to 127, cols 128 to 255", "col 5"
  std::int64_t members = 1;   // of the family
  double observed = 0.0;      // per element (of routing: per token)
  double expected = 0.0;      // at most, on average over legal implementations
  double limit = 0.0;         // about where the test fires
  double log10_chance = 0.0;  // of legal implementations that show as much: at most this
  double log10_share = 0.0;   // the run's false-alarm probability, shared out: the test fires below
  bool beyond = false;
};

/// Statistics of one field's elements against the reference.
struct Statistics {
  std::string units;  // what is taken as independent: "elements", "tokens", "gate values", "fields";
                      // empty: no statistics
  std::int64_t unit_count = 0;
  double z2 = 0.0;                 // mean of (out - ref)^2 / (ulp^2 / 12 + noise^2)
  double z2_of_rounding = 0.0;     // the same of the rounded reference
  double max_contract_ulps = 0.0;  // largest |out - ref| / max(ulp, 2 delta)
  std::vector<std::pair<std::string, std::int64_t>> max_contract_ulps_at;  // axis name, index
  std::vector<std::pair<std::int64_t, std::int64_t>>
      ulp_histogram;  // first distance of a bucket (0, 1, 2, 3, 5, 9, ...), elements
  std::vector<std::pair<std::int64_t, std::int64_t>>
      ulps_inward;  // likewise, those of them on the side of zero from the rounded reference, or across it
  std::vector<StatisticalTest> tests;
  std::string suspicion;   // one sentence where a test fires
  bool explained = false;  // yet every bit is as predicted, so that nothing is suspect
};

/// The two bounds behind a field's intervals: a priori, for any order of summation, and running, for the
/// declared one.
struct BoundsUsed {
  std::string a_priori;      // how it is made: "C(n) sum |a||b|, ..."; empty: no account was taken
  std::string running;       // how it is made, or why there is none
  std::int64_t sampled = 0;  // elements of a product looked at, other than exact ones
  std::int64_t exact = 0;    // elements looked at that are exact in any order: no bound at all
  double typical = 0.0;      // median over those sampled: a priori / in force
};

/// How many of a field's rejected elements are listed.
inline constexpr std::size_t kWorstRejected = 10;

/// One way of judging a field (isolated or chained).
struct Judgement {
  Verdict verdict = Verdict::NotMaterialised;
  std::int64_t elements = 0;
  std::int64_t rejected = 0;  // outside the accepted interval
  // of a selection, whose elements are ids
  std::int64_t tokens = 0;
  std::int64_t rejected_tokens = 0;
  std::int64_t non_finite = 0;
  std::int64_t mismatched = 0;  // bits differ from the rounded reference: information, not a verdict
  double max_ratio = 0.0;
  std::string where;             // the rejected elements, from the data alone: "all in expert 3"
  std::optional<Element> worst;  // largest ratio, or the first rejected exact element
  std::vector<std::pair<std::int64_t, double>>
      worst_by_expert;  // expert, max ratio; fields with rows of experts only
  std::vector<std::pair<std::int64_t, std::int64_t>> rejected_by_expert;  // expert, elements; those with any
  std::vector<Element> worst_rejected;  // at most kWorstRejected, by ratio; without a_priori and running
  std::optional<ErrorPattern> pattern;  // where elements are rejected; chained: and isolated none are
  Statistics statistics;                // beyond its limits: Suspect, unless every bit is as predicted
  BoundsUsed bounds;
};

/// Predicted bits of one field.
struct Prediction {
  bool available = false;  // the producer is a Hopper GPU, or an accumulator is declared
  bool binding = false;    // an accumulator is declared: a difference is Suspect
  std::int64_t elements = 0;
  std::int64_t as_predicted = 0;
  std::int64_t undetermined = 0;
  std::int64_t differing = 0;
  std::string accumulator;       // what was assumed: "hopper", "hopper_split(2048, 2048)"
  std::optional<Element> first;  // the first differing element; `ref` is the predicted value
  std::string cause;             // why it differs, when one hypothesis explains it
};

/// A wrong copy of the reference, shown to the checks of this very field: a check that accepts it proves
/// nothing.
enum class VacuityOutcome {
  Rejected,       // as it must be
  NotApplicable,  // the copy equals the reference, or is a legal result too
  WouldPass,      // the field is Mistrusted
};
std::string_view name(VacuityOutcome outcome);

struct VacuityCheck {
  std::string copy;  // "zeros", "rows rotated by one", "half-scaled", "columns shifted by one"
  VacuityOutcome outcome = VacuityOutcome::NotApplicable;
  std::string reason;    // "interval", "predicted bits", "equals the reference", ...
  bool chained = false;  // of the chained checks: information, not a verdict
};

/// "7,986 of 262,144", of a selection "1 of 1 tokens, 4 of 4 ids".
std::string rejected_in_words(const Judgement& judgement);

struct FieldResult {
  Field field{};
  DType dtype = DType::BFloat16;               // in which its elements are stored and judged
  Verdict verdict = Verdict::NotMaterialised;  // the worst of the parts
  std::string origin;                          // "captured", "derived", "computed"
  std::string upstream;  // what the isolated check started from, when it is a composite edge
  Judgement isolated;
  Judgement chained;
  Prediction isolated_bits;
  Prediction chained_bits;
  std::vector<Cause> causes;  // of an error of its own, best first
  std::vector<VacuityCheck> vacuity;
  std::vector<std::string> notes;  // "expected shape [16, 128], found [16, 64]"
};

/// How a token's choice of other experts than the reference's is explained (NUMERICS 7).
enum class RoutingTier {
  ExactTie,    // the logits exchanged are equal once stored: legal where the contract leaves ties open
  Admissible,  // within 6 times the modelled noise of the logits
  Suspicious,  // only within the worst-case bound of the logits: expected about never
  Failed,      // beyond it
};
std::string_view name(RoutingTier tier);

/// A token whose selected experts differ from the reference's, legally or not.
struct RoutingFlip {
  std::int64_t token = 0;
  std::vector<std::int64_t> candidate_only;
  std::vector<std::int64_t> reference_only;
  double gap = 0.0;         // between the logits exchanged
  double bound = 0.0;       // gap that the errors of both logits allow
  bool admissible = false;  // not Failed
  double noise = 0.0;       // modelled rms error of the difference of the logits exchanged, after storing
  RoutingTier tier = RoutingTier::Failed;
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
  std::string headline;                   // one sentence: verdict and first stage with an error of its own
  std::optional<Field> first_own_error;   // the field in which it is seen
  std::string own_error_place;            // where it lies: that field, one before it that was not written, or
                                          // "between the inputs and hidden_states"; empty without one
  std::vector<FieldResult> fields;        // in the order of the field table
  std::vector<std::int64_t> expert_load;  // rows per expert
  std::vector<RoutingFlip> flips;
  std::vector<std::string> remarks;
  std::string replay;    // command line that repeats this case
  std::string explain;   // derives the worst element of the first field that did not pass; may be empty
  std::string minimize;  // writes the smallest part that still fails the same way; may be empty
  double seconds = 0.0;
  std::int64_t multiply_adds = 0;     // of one forward pass over the products
  std::int64_t reference_values = 0;  // that fields were compared with
  std::int64_t confirmed_values = 0;  // of them, by an independent program
};

struct Report {
  std::string title;
  std::string command;
  std::string created;  // UTC, ISO 8601
  std::vector<std::pair<std::string, std::string>>
      environment;  // "assay" revision, compiler, CPU, threads, libraries
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
