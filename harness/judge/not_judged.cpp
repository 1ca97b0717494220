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

/// "d_down_proj" of "experts.down_proj.grad", "grad_down_proj" and "down_proj_grad".
std::string plain_name(std::string_view name) {
  bool gradient = false;
  const auto without = [&name](std::string_view part, bool in_front) {
    const bool has = in_front ? name.starts_with(part) : name.ends_with(part);
    if (has && in_front) name.remove_prefix(part.size());
    if (has && !in_front) name.remove_suffix(part.size());
    return has;
  };
  for (const auto part : {".grad", "_grad"}) gradient = without(part, false) || gradient;
  for (const auto part : {"grad_", "d_"}) gradient = without(part, true) || gradient;
  without(".weight", false);
  without("mlp.", true);
  without("experts.", true);
  return (gradient ? "d_" : "") + std::string(name);
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
  const auto last = path.substr(path.rfind('/') + 1);
  for (const FieldRow& field : kFields)
    if (field.name == last) return field.name;
  const std::string word = plain_name(last);
  if (word.size() >= kLettersASlip)
    for (const FieldRow& field : kFields)
      if (plain_name(field.alias) == word) return field.name;
  std::string_view best;
  std::size_t least = std::min(kMostSlips, word.size() / kLettersASlip) + 1;
  for (const FieldRow& field : kFields)
    if (const auto distance = slips(word, field.name); distance < least) {
      least = distance;
      best = field.name;
    }
  if (!best.empty() || word.size() < kLettersASlip) return best;
  const auto begins = [&](const FieldRow& field) { return field.name.starts_with(word); };
  const auto whole = std::ranges::find_if(kFields, begins);
  return std::ranges::count_if(kFields, begins) == 1 ? whole->name : "";
}

void tell_not_judged(CaseResult& result, const Problem& problem, const Candidate& candidate,
                     const std::vector<Unjudged>& unjudged) {
  if (unjudged.empty()) return;
  std::vector<std::string> wrong;
  struct Reason {
    std::string_view why;
    std::vector<std::string_view> names;
    std::vector<std::string_view> meant;
  };
  std::vector<Reason> reasons;  // in their order
  for (const auto& one : unjudged) {
    auto known = std::ranges::find(reasons, one.why, &Reason::why);
    if (known == reasons.end()) known = reasons.insert(known, {one.why, {}, {}});
    known->names.push_back(one.name);
    if (!one.meant.empty()) known->meant.push_back(one.meant);
    if (one.non_finite > 0)
      wrong.push_back(fmt::format("{} holds {} value{} not finite", one.name, grouped_digits(one.non_finite),
                                  one.non_finite == 1 ? " that is" : "s that are"));
  }
  const auto listed = [](std::vector<std::string_view> names) {
    constexpr std::size_t kMostNamed = 4;
    const auto more = names.size() - std::min(names.size(), kMostNamed);
    names.resize(names.size() - more);
    return fmt::format("{}{}", fmt::join(names, ", "), more > 0 ? fmt::format(" and {} more", more) : "");
  };
  for (const auto& [why, names, meant] : reasons) {
    constexpr std::string_view kIt = "it is ";
    const bool several = names.size() > 1 && why.starts_with(kIt);
    result.headline += fmt::format("; {} not judged ({}), for {}{}", names.size(), listed(names),
                                   several ? "they are " : "", several ? why.substr(kIt.size()) : why);
    if (!meant.empty())
      result.headline += fmt::format("; {} {} meant?", meant.size() == 1 ? "is" : "are", listed(meant));
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
