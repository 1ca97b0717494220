// The rules of thumb by which kernels are usually accepted: what leaves the layer against a rounded
// reference, or beside what PyTorch's own run is off; one number for all of a tensor.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "harness/cli/mutate/right_answers.h"
#include "harness/contract/field_set.h"

namespace assay::cli {

/// Sums over the elements of two outputs; an element that is NaN in both is left out.
struct Agreement {
  std::int64_t elements = 0;
  std::int64_t within_hundredth = 0;  // |out - ref| <= 1e-2 + 1e-2 |ref|
  std::int64_t within_torch = 0;      // |out - ref| <= 1e-5 + 1.6e-2 |ref|
  std::int64_t within_liger = 0;      // |out - ref| <= 3e-3 + 1e-2 |ref|
  double dot = 0.0;
  double out_energy = 0.0;
  double ref_energy = 0.0;
  // The largest |out - exact|, and of PyTorch's run; NaN where there is one.
  double error = 0.0;
  double torch_error = 0.0;
};

struct Rival {
  std::string_view id;
  std::string_view sentence;
  bool usual;  // one of the three that most test suites use
  bool (*accepts)(const Agreement&);
};

std::span<const Rival> rivals();

/// What one tensor is compared with.
struct Beside {
  const Tensor& reference;
  const Tensor& torch;
  std::span<const double> exact;
};

Agreement agreement(const Tensor& out, const Beside& right);

/// Ids of the rules that accept the tensor.
std::vector<std::string_view> accepting_rivals(const Tensor& out, const Beside& right);

/// Likewise of what leaves a layer, all of `fields` that there is, each by itself.
std::vector<std::string_view> accepting_rivals(const FieldSet& out, const RightAnswers& right,
                                               std::span<const Field> fields = kLeaving);

}  // namespace assay::cli
