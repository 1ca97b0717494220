// The rules of thumb by which kernels are usually accepted: what leaves the layer against a rounded
// reference, one number for all of a tensor.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "harness/contract/field_set.h"

namespace assay::cli {

/// Sums over the elements of two outputs; an element that is NaN in both is left out.
struct Agreement {
  std::int64_t elements = 0;
  std::int64_t within_hundredth = 0;  // |out - ref| <= 1e-2 + 1e-2 |ref|
  std::int64_t within_torch = 0;      // |out - ref| <= 1e-5 + 1.6e-2 |ref|
  double dot = 0.0;
  double out_energy = 0.0;
  double ref_energy = 0.0;
};

struct Rival {
  std::string_view id;
  std::string_view sentence;
  bool usual;  // one of the three that most test suites use
  bool (*accepts)(const Agreement&);
};

std::span<const Rival> rivals();

/// Both [T, H] bf16.
Agreement agreement(const Tensor& out, const Tensor& reference);

/// Ids of the rules that accept the output.
std::vector<std::string_view> accepting_rivals(const Tensor& out, const Tensor& reference);

/// Likewise of a layer: its output and, where there are any, the gradients that leave it, each by itself.
std::vector<std::string_view> accepting_rivals(const FieldSet& out, const FieldSet& reference);

}  // namespace assay::cli
