// A set of results to be judged, and what its producer says about itself.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "harness/contract/accumulator.h"
#include "harness/contract/field_set.h"
#include "harness/contract/held_field.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/verdict.h"

namespace assay {

/// A field that a file has in a form in which it is not read: its verdict, and what was expected and found.
struct Misstored {
  Verdict verdict = Verdict::WrongDtype;
  std::string sentence;
};

/// Results of one run of one implementation, with its provenance. What dumps and goldens store beside a
/// Problem.
struct Candidate {
  std::string name;                // pipeline or file, for reports
  std::string kind = "candidate";  // "golden", "candidate", "predicted"
  std::string contract = "hf";     // name of a PrecisionContract, or "auto"
  Accumulators accumulators;
  TieRule ties = TieRule::Any;                           // how it chooses and orders equal probabilities
  ExpertRowOrder row_order = ExpertRowOrder::Ascending;  // in which order it promises an expert's rows
  std::string producer;                                  // "huggingface grouped_mm", "gpu_fused", ...
  std::string device;                                    // "NVIDIA H200", "cpu"
  std::string compute_capability;                        // "9.0"; empty without a GPU
  std::map<std::string, std::string> provenance;  // versions, determinism flags, revision, command line
  FieldSet fields;
  std::vector<HeldField> held;           // fields too large to store; none of them is in `fields`
  std::map<Field, Misstored> misstored;  // none of them is in `fields`
  FieldSet oracle;                       // float64 results of the same problem, where the file has them
  std::vector<std::string>
      remarks;  // what the reader must tell: "no hashes", "float32 with zero low halves", ...

  /// What is held of a field by hashes, or null.
  const HeldField* held_field(Field field) const {
    const auto found = std::ranges::find(held, field, &HeldField::field);
    return found == held.end() ? nullptr : &*found;
  }

  /// Whether it has a field: its elements, their hashes, or a form that is not read.
  bool holds(Field field) const {
    return fields.has(field) || misstored.contains(field) || held_field(field) != nullptr;
  }

  bool from_hopper() const { return compute_capability.starts_with("9."); }
};

inline bool declared(const Accumulator& accumulator) { return accumulator.kind != AccumulatorKind::Unknown; }
/// Whether the accumulators of all forward products are declared.
inline bool declared(const Accumulators& all) {
  for (const ProductRow& product : kProducts)
    if (row(product.made).group == Group::Forward && !declared(all[product.id])) return false;
  return true;
}

/// Whether every bit of a field is promised: by its accumulator, where nothing but a product stands between
/// the field and stored fields it is computed from; else by a candidate that promises the rest as well.
inline bool promises_bits(const Accumulators& accumulators, ExpertRowOrder rows, Field field,
                          bool from_stored_fields, const PrecisionContract& contract) {
  if (!declared(accumulators)) return false;
  for (const ProductRow& product : kProducts) {
    if (product.made != field && !descends_from(field, product.made, contract)) continue;
    if (!declared(accumulators[product.id])) return false;
    if (rows == ExpertRowOrder::Any && product.summed == Dim::S) return false;  // sums over rows in no order
  }
  // The router's product reads nothing but what is given, and its rows are in no order that may be another.
  if (accumulators.rest_as_torch || product_of(field) == ProductId::router) return true;
  const bool copy = find_step(field)->kind == StepKind::Unpermute;  // of a product's rows
  // Where the weight comes after the product, exponentials stand between as well.
  const bool recomputes = weight_after_product(contract) && field == Field::d_down_proj;
  return from_stored_fields && (copy || product_of(field)) && !recomputes;
}

/// What the a-priori bound of products is multiplied by. Tensor cores before Hopper align 8 products with 24
/// fractional bits, a step of the same 5 * 2^-23 for half as many products: 1.25 n u where Hopper comes to
/// 0.625 n u (NUMERICS, Products). 2 covers it.
inline double product_slack(const Candidate& candidate, const Accumulators& accumulators) {
  for (const Accumulator& one : accumulators.of)
    if (one.kind == AccumulatorKind::Ampere) return 2.0;
  const auto& capability = candidate.compute_capability;
  const bool gpu_of_unknown_kind =
      capability.empty() && !candidate.device.empty() && !candidate.device.starts_with("cpu");
  return gpu_of_unknown_kind || capability.starts_with("7.") || capability.starts_with("8.") ? 2.0 : 1.0;
}

}  // namespace assay
