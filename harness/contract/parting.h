// Two candidates on one problem, without a golden: where they part, by how much, and who is nearer to
// float64.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "harness/contract/report.h"

namespace assay {

/// An element in which both differ, and what it is in float64 on each one's own routing.
struct PartingElement {
  std::vector<std::pair<std::string, std::int64_t>> at = {};  // axis names of A, index
  // flat indices
  std::int64_t in_a = 0;
  std::int64_t in_b = 0;
  double a = 0.0;
  double b = 0.0;
  std::optional<double> float64_a = {};
  std::optional<double> float64_b = {};
};

/// One field of both. Rows are matched by token and expert: row r of one and row s of the other belong
/// together.
struct FieldParting {
  Field field{};
  bool in_a = false;
  bool in_b = false;
  std::string incomparable = {};  // "expected float32 [3, 5] as in A, found ...": nothing was compared
  std::int64_t elements = 0;
  std::int64_t differing = 0;  // bits of matched elements
  std::int64_t unmatched = 0;  // elements of rows that the other has not: another expert was taken
  // where both hold it by hashes alone
  std::int64_t hashes = 0;
  std::int64_t differing_hashes = 0;
  std::int64_t largest_ulps = 0;  // bf16 neighbours, over elements finite on both sides
  std::optional<PartingElement> first = {};
  std::optional<PartingElement> furthest = {};  // from each other, of those that are finite
  // Root mean square distance of the differing elements from the layer in float64 on each one's own routing;
  // none for integers.
  std::optional<double> rms_a = {};
  std::optional<double> rms_b = {};
  // differing elements of which A's, B's is the nearer
  std::int64_t nearer_a = 0;
  std::int64_t nearer_b = 0;
  Verdict verdict_a = Verdict::NotMaterialised;
  Verdict verdict_b = Verdict::NotMaterialised;

  bool compared() const { return (in_a && in_b && incomparable.empty()) || hashes > 0; }
  bool parts() const {
    return (in_a && in_b && !incomparable.empty()) || differing > 0 || unmatched > 0 || differing_hashes > 0;
  }
};

/// A token for which the two took other experts.
struct RoutingParting {
  std::int64_t token = 0;
  std::vector<std::int64_t> only_a;
  std::vector<std::int64_t> only_b;
  // of the logits exchanged, as each stored them: 0 is a tie
  std::optional<double> gap_a;
  std::optional<double> gap_b;
};

struct RoutingAgreement {
  std::int64_t tokens = 0;  // compared; 0 where either does not write selected_experts
  std::int64_t same_sets = 0;
  std::int64_t same_order = 0;
  std::optional<std::int64_t> same_weights = {};  // tokens whose weights have the same bits, expert by expert
  std::vector<RoutingParting> partings = {};
  // Of A's logits: tokens whose last expert taken ties with one left, and the smallest distance of others.
  std::optional<std::int64_t> ties = {};
  std::optional<double> smallest_margin = {};
};

/// One of the two: what judging it with --contract auto says.
struct PartingSide {
  std::string name;
  std::vector<std::string> legal_under;  // contracts under which it passes
  CaseResult judged;                     // under the best

  bool legal() const { return !legal_under.empty(); }
};

struct Parting {
  PartingSide a;
  PartingSide b;
  std::vector<FieldParting> fields;  // those that either has, in the order of the table
  std::optional<Field> first;        // in order of evaluation
  // Rounding points in which A differs from B, a sentence each: those that the first field tells of, and
  // others.
  std::vector<std::string> separating;
  std::vector<std::string> separating_others;
  RoutingAgreement routing;
  std::string sentence;
};

/// 0 equal and legal, 4 they part and both are legal or suspect, 1 one is not legal, 77 no field in common.
ExitCode exit_code(const Parting& parting);

}  // namespace assay
