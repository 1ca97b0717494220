#include "harness/cli/mutate/rivals.h"

#include <algorithm>
#include <cmath>

#include "harness/contract/stored.h"

namespace assay::cli {
namespace {

bool every_within_hundredth(const Agreement& a) { return a.within_hundredth == a.elements; }
bool every_within_torch(const Agreement& a) { return a.within_torch == a.elements; }
bool most_within_hundredth(const Agreement& a) {
  return static_cast<double>(a.within_hundredth) >= 0.95 * static_cast<double>(a.elements);
}

/// DeepGEMM, deep_gemm/testing/numeric.py. Two outputs of zeros agree.
double calc_diff(const Agreement& a) {
  const double energy = a.out_energy + a.ref_energy;
  return energy == 0.0 ? 0.0 : 1.0 - 2.0 * a.dot / energy;
}
bool calc_diff_1e3(const Agreement& a) { return calc_diff(a) < 1e-3; }
bool calc_diff_1e5(const Agreement& a) { return calc_diff(a) < 1e-5; }

bool every_within_liger(const Agreement& a) { return a.within_liger == a.elements; }
bool twice_torch(const Agreement& a) { return a.error <= 2.0 * a.torch_error + 1e-6; }

bool cosine(const Agreement& a) {
  return a.out_energy + a.ref_energy == 0.0 || a.dot / std::sqrt(a.out_energy * a.ref_energy) > 0.997;
}

// Every comparison is false for NaN, as it is in the tools the rules come from.
constexpr Rival kRivals[] = {
    {"allclose_1e-2", "every element within 1e-2 + 1e-2 |ref| (flashinfer-bench, KernelBench)", true,
     every_within_hundredth},
    {"allclose_torch", "every element within 1e-5 + 1.6e-2 |ref| (torch.testing's default for bf16)", false,
     every_within_torch},
    {"matched_95", "95 % of the elements within 1e-2 + 1e-2 |ref| (flashinfer-bench for MoE)", true,
     most_within_hundredth},
    {"calc_diff_1e-3", "1 - 2 sum xy / sum (x^2 + y^2) below 1e-3 (DeepGEMM, fp8)", false, calc_diff_1e3},
    {"calc_diff_1e-5", "1 - 2 sum xy / sum (x^2 + y^2) below 1e-5 (DeepGEMM, bf16)", false, calc_diff_1e5},
    {"cosine_0.997", "cosine above 0.997 (Polygraphy)", true, cosine},
    {"allclose_liger", "every element within 3e-3 + 1e-2 |ref| (Liger-Kernel, of a MoE layer's gradients)",
     false, every_within_liger},
    {"twice_torch", "largest error from float64 at most twice PyTorch's own, plus 1e-6 (quack)", false,
     twice_torch},
};

}  // namespace

std::span<const Rival> rivals() { return kRivals; }

namespace {

/// The larger one; NaN where either is.
double larger(double a, double b) { return a >= b || std::isnan(a) ? a : b; }

double difference(double a, double b) { return a == b ? 0.0 : std::fabs(a - b); }  // equal infinities agree

}  // namespace

Agreement agreement(const Tensor& out, const Beside& right) {
  Agreement a;
  const StoredSpan x(out, out.dtype());
  const StoredSpan y(right.reference, right.reference.dtype());
  const StoredSpan torch(right.torch, right.torch.dtype());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double value = x.value(i);
    const double ref = y.value(i);
    if (std::isnan(value) && std::isnan(ref)) continue;
    const double error = difference(value, ref);
    ++a.elements;
    a.within_hundredth += error <= 1e-2 + 1e-2 * std::fabs(ref);
    a.within_torch += error <= 1e-5 + 1.6e-2 * std::fabs(ref);
    a.within_liger += error <= 3e-3 + 1e-2 * std::fabs(ref);
    a.dot += value * ref;
    a.out_energy += value * value;
    a.ref_energy += ref * ref;
    a.error = larger(a.error, difference(value, right.exact[i]));
    a.torch_error = larger(a.torch_error, difference(torch.value(i), right.exact[i]));
  }
  return a;
}

std::vector<std::string_view> accepting_rivals(const Tensor& out, const Beside& right) {
  const Agreement sums = agreement(out, right);
  std::vector<std::string_view> accepting;
  for (const auto& rival : kRivals)
    if (rival.accepts(sums)) accepting.push_back(rival.id);
  return accepting;
}

std::vector<std::string_view> accepting_rivals(const FieldSet& out, const RightAnswers& right,
                                               std::span<const Field> fields) {
  std::vector<std::string_view> accepting;
  for (const auto& rival : kRivals) accepting.push_back(rival.id);
  for (const Field field : fields) {
    if (!right.torch.fields.has(field) || !out.has(field)) continue;
    const auto of_field = accepting_rivals(
        out.at(field),
        Beside{right.reference.fields.at(field), right.torch.fields.at(field), right.exact.at(field)});
    std::erase_if(accepting,
                  [&](std::string_view id) { return std::ranges::find(of_field, id) == of_field.end(); });
  }
  return accepting;
}

}  // namespace assay::cli
