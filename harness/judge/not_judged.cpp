#include "harness/judge/not_judged.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/digits.h"

namespace assay {
namespace {

template <class Is>
std::int64_t count_values(const Tensor& tensor, Is is) {
  switch (tensor.dtype()) {
    case DType::BFloat16:
      return std::ranges::count_if(tensor.as<Bf16>(), [&](Bf16 x) { return is(to_float(x)); });
    case DType::Float64: return std::ranges::count_if(tensor.as<double>(), is);
    case DType::Float32: return std::ranges::count_if(tensor.as<float>(), is);
    case DType::Int32: return 0;
  }
  return 0;
}

/// Levenshtein's distance: letters to insert, remove or replace.
std::size_t slips(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const auto replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j + 1] + 1, row[j] + 1, replaced});
    }
  }
  return row.back();
}

bool finite(const Tensor& tensor) { return non_finite(tensor) == 0; }

/// Whether what the problem gives and what was judged hold nothing else than finite values. Loads all
/// experts.
bool all_else_is_finite(const CaseResult& result, const Problem& problem, const Candidate& candidate) {
  if (!finite(problem.input) || !finite(problem.output_gradient) || !finite(problem.gate)) return false;
  for (std::int64_t expert = 0; expert < problem.config.num_experts; ++expert)
    for (const Field field : {Field::gate_up_proj, Field::down_proj})
      for (const Bf16 value : problem.experts(field, expert).values)
        if (!std::isfinite(to_float(value))) return false;
  return std::ranges::all_of(result.fields, [&](const FieldResult& field) {
    return !compared(field.verdict) || !candidate.fields.has(field.field) ||
           finite(candidate.fields.at(field.field));
  });
}

}  // namespace

std::int64_t non_finite(const Tensor& tensor) {
  return count_values(tensor, [](double x) { return !std::isfinite(x); });
}

std::string_view likely_field(std::string_view path) {
  constexpr std::size_t kLettersASlip = 5;  // one slip in so many letters, two at most
  constexpr std::size_t kMostSlips = 2;
  const auto word = path.substr(path.rfind('/') + 1);
  std::string_view best;
  std::size_t least = std::min(kMostSlips, word.size() / kLettersASlip) + 1;
  for (const FieldRow& field : kFields)
    if (const auto distance = slips(word, field.name); distance < least) {
      least = distance;
      best = field.name;
    }
  return best;
}

void tell_not_judged(CaseResult& result, const Problem& problem, const Candidate& candidate,
                     const std::vector<Unjudged>& unjudged) {
  if (unjudged.empty()) return;
  std::vector<std::string> wrong;
  std::vector<std::pair<std::string_view, std::vector<std::string_view>>>
      reasons;  // in their order, with names
  for (const auto& one : unjudged) {
    auto known = std::ranges::find(reasons, one.why, [](const auto& reason) { return reason.first; });
    if (known == reasons.end()) known = reasons.insert(known, {one.why, {}});
    known->second.push_back(one.name);
    if (one.non_finite > 0)
      wrong.push_back(fmt::format("{} holds {} value{} not finite", one.name, grouped_digits(one.non_finite),
                                  one.non_finite == 1 ? " that is" : "s that are"));
  }
  for (auto& [why, names] : reasons) {
    constexpr std::size_t kMostNamed = 4;
    const auto all = names.size();
    const auto more = all - std::min(all, kMostNamed);
    names.resize(all - more);
    result.headline += fmt::format("; {} not judged ({}{}), for {}", all, fmt::join(names, ", "),
                                   more > 0 ? fmt::format(" and {} more", more) : "", why);
  }
  if (wrong.empty()) return;
  const std::string values = fmt::format("{}", fmt::join(wrong, "; "));
  if (result.verdict > Verdict::Passed || !all_else_is_finite(result, problem, candidate)) {
    result.remarks.push_back(values + ", and was not judged");
    return;
  }
  result.verdict = Verdict::NonFinite;
  result.headline = fmt::format("{}, while all that was judged is finite; {}", values, result.headline);
}

bool nothing_but_nan(const CaseResult& result, const Candidate& candidate) {
  std::int64_t values = 0;
  for (const auto& field : result.fields) {
    if (!candidate.fields.has(field.field) || row(field.field).match != Match::Rounded) continue;
    const Tensor& tensor = candidate.fields.at(field.field);
    if (tensor.dtype() == DType::Int32) continue;
    values += tensor.size();
    if (count_values(tensor, [](double x) { return !std::isnan(x); }) > 0) return false;
  }
  return values > 0;
}

}  // namespace assay
