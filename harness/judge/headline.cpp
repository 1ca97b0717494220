#include "harness/judge/headline.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/digits.h"
#include "harness/contract/layer.h"

namespace assay {
namespace {

bool own_failure(const FieldResult& field) {
  return failed(field.isolated.verdict) || field.verdict == Verdict::WrongShape ||
         field.verdict == Verdict::WrongDtype;
}

bool own_suspicion(const FieldResult& field) {
  return field.isolated.verdict == Verdict::Suspect ||
         (field.isolated_bits.binding && field.isolated_bits.differing > 0);
}

/// Where the accusation names the unwritten field already, the sentence does not repeat it.
std::string said_after_accusation(const Cause& cause) {
  const auto prefix = cause.every_bit && cause.unwritten ? in_unwritten(*cause.unwritten).size() : 0;
  return in_words(cause).substr(prefix);
}

std::string in_words(const FieldResult& field) {
  if (field.verdict == Verdict::WrongShape || field.verdict == Verdict::WrongDtype)
    return field.notes.empty() ? std::string(name(field.verdict)) : field.notes.front();
  const Judgement& own = field.isolated;
  const Cause* cause = named_cause(field.causes);
  if (cause != nullptr && own.rejected > 0 && row(field.field).dtype == DType::Int32)
    return fmt::format("{} wrong: {}", rejected_in_words(own), in_words(*cause));
  if (cause != nullptr) return said_after_accusation(*cause);
  if (row(field.field).dtype == DType::Int32 && !field.notes.empty()) return field.notes.front();
  if (own.rejected > 0) {
    std::string where;
    if (!own.where.empty()) where = fmt::format("; {}", own.where);
    if (own.worst) {
      std::string at;
      for (const auto& [axis, index] : own.worst->at)
        at += fmt::format("{}{} {}", at.empty() ? "" : ", ", axis, index);
      where += fmt::format("; {} at {}", row(field.field).dtype == DType::Int32 ? "first" : "worst", at);
    }
    if (row(field.field).dtype == DType::Int32)
      return fmt::format("{} wrong{}", rejected_in_words(own), where);
    return fmt::format("{} elements outside the accepted interval{}", rejected_in_words(own), where);
  }
  const Prediction& bits = field.isolated_bits;
  if (!(bits.binding && bits.differing > 0) && !own.statistics.suspicion.empty())
    return own.statistics.suspicion;
  return fmt::format("{} of {} bits not as predicted{}", grouped_digits(bits.differing),
                     grouped_digits(bits.elements), bits.cause.empty() ? "" : " (" + bits.cause + ")");
}

const FieldResult* find_field(const CaseResult& result, Field field) {
  const auto found = std::ranges::find(result.fields, field, &FieldResult::field);
  return found == result.fields.end() ? nullptr : &*found;
}

/// The stage before it that was not written and whose cause gives every bit.
std::optional<Field> explained_before(const FieldResult& own) {
  if (own.causes.empty() || !own.causes.front().every_bit) return std::nullopt;
  return own.causes.front().unwritten;
}

/// Whether the cause that gives every bit lies in the field itself.
bool explained_in_itself(const FieldResult& own) {
  return !own.causes.empty() && own.causes.front().every_bit && !own.causes.front().unwritten;
}

const PrecisionContract& contract_of(const CaseResult& result) {
  const auto named = std::ranges::find(kContracts, result.contract, &PrecisionContract::name);
  return named == kContracts.end() ? kContracts.front() : *named;
}

/// Where the span that the field is the end of begins: written fields, and the inputs.
void add_beginnings(const CaseResult& result, Field field, std::vector<std::string_view>& all) {
  const auto add = [&](std::string_view what) {
    if (std::ranges::find(all, what) == all.end()) all.push_back(what);
  };
  const PrecisionContract& contract = contract_of(result);
  for (const auto& read : find_step(field, contract)->reads) {
    if (!read || row(*read).group == Group::Weights || row(*read).dtype == DType::Int32) continue;
    const FieldResult* written = find_field(result, *read);
    if (given(*read))
      add("the inputs");
    else if (written != nullptr && compared(written->verdict) && in_memory(field, *read, contract))
      add(name(*read));
    else
      add_beginnings(result, *read, all);
  }
}

/// "first_gemm is the first stage with an error of its own: ", or which span holds the first error.
std::string accusation(const CaseResult& result, const FieldResult& own) {
  if (const auto before = explained_before(own))
    return fmt::format("{}, which was not written, is the first stage with an error of its own, seen in {}: ",
                       name(*before), name(own.field));
  if (own.upstream.empty() || explained_in_itself(own))
    return fmt::format("{} is the first stage with an error of its own: ", name(own.field));
  return fmt::format("the first error lies {}, where {} {} not written: ", own_error_place(result),
                     own.upstream, own.upstream.find(',') == std::string::npos ? "was" : "were");
}

/// Why fields are red although no stage has an error of its own.
std::string_view without_own_error(const CaseResult& result, bool one) {
  if (failed(result.verdict))
    return one ? "lies outside the bound carried from the inputs"
               : "lie outside the bound carried from the inputs";
  for (const auto& field : result.fields)
    if (field.chained_bits.binding && field.chained_bits.differing > 0)
      return one ? "is not as predicted from the inputs" : "are not as predicted from the inputs";
  return one ? "deviates from the inputs' reference more than legal implementations do"
             : "deviate from the inputs' reference more than legal implementations do";
}

/// Fields whose checks a wrong copy of the reference would have passed, and nothing worse.
std::string mistrusted(const std::vector<std::string_view>& bad, std::size_t fields) {
  return fmt::format(
      "all {} fields pass, but the check{} of {} could not have failed: a wrong copy of the reference passes "
      "too",
      fields, bad.size() == 1 ? "" : "s", fmt::join(bad, ", "));
}

}  // namespace

std::optional<Field> first_own_error(const CaseResult& result) {
  for (const auto& field : result.fields)
    if (own_failure(field)) return field.field;
  for (const auto& field : result.fields)
    if (own_suspicion(field)) return field.field;
  return std::nullopt;
}

PredictedTotals predicted_totals(const CaseResult& result, bool chained) {
  PredictedTotals totals;
  for (const auto& field : result.fields) {
    const Prediction& bits = chained ? field.chained_bits : field.isolated_bits;
    totals.elements += bits.elements;
    totals.as_predicted += bits.as_predicted;
    totals.undetermined += bits.undetermined;
    totals.differing += bits.differing;
  }
  return totals;
}

std::string own_error_place(const CaseResult& result) {
  if (!result.first_own_error) return "";
  const FieldResult& own = *find_field(result, *result.first_own_error);
  if (const auto before = explained_before(own)) return std::string(name(*before));
  if (own.upstream.empty() || explained_in_itself(own)) return std::string(name(own.field));
  std::vector<std::string_view> beginnings;
  add_beginnings(result, own.field, beginnings);
  return fmt::format("between {} and {}", fmt::join(beginnings, ", "), name(own.field));
}

std::string headline(const CaseResult& result) {
  std::vector<std::string_view> bad;
  std::vector<std::string_view> compared_fields;
  for (const auto& field : result.fields) {
    if (compared(field.verdict)) compared_fields.push_back(name(field.field));
    if (field.verdict > Verdict::Passed) bad.push_back(name(field.field));
  }
  if (compared_fields.empty()) return "nothing was compared: the candidate materialises no forward field";
  if (bad.empty()) {
    const auto totals = predicted_totals(result, true);
    std::string sentence = fmt::format("all {} fields pass", compared_fields.size());
    if (totals.elements > 0)
      sentence += fmt::format("; bits as predicted from the inputs alone: {} of {}",
                              grouped_digits(totals.as_predicted), grouped_digits(totals.elements));
    const auto unsupported = std::ranges::count(result.fields, Verdict::Unsupported, &FieldResult::verdict);
    if (unsupported > 0)
      sentence += fmt::format("; {} field{} held by hashes and not compared", unsupported,
                              unsupported == 1 ? " is" : "s are");
    return sentence;
  }
  if (!result.first_own_error) {
    if (result.verdict == Verdict::Mistrusted) return mistrusted(bad, compared_fields.size());
    const std::string_view what = without_own_error(result, bad.size() == 1);
    return fmt::format("no stage has an error of its own, but {} {}", fmt::join(bad, ", "), what);
  }
  const FieldResult* own = find_field(result, *result.first_own_error);
  std::vector<std::string_view> inherited;
  std::vector<std::string_view> others;
  std::vector<std::string_view> right;
  for (const auto& field : result.fields) {
    if (field.isolated.verdict == Verdict::NotJudged && field.verdict <= Verdict::Mistrusted)
      right.push_back(name(field.field));
    if (field.field == *result.first_own_error || field.verdict <= Verdict::Passed) continue;
    (own_failure(field) || own_suspicion(field) ? others : inherited).push_back(name(field.field));
  }
  std::string sentence = accusation(result, *own) + in_words(*own);
  if (!inherited.empty())
    sentence +=
        fmt::format("; {} {} it", fmt::join(inherited, ", "), inherited.size() == 1 ? "inherits" : "inherit");
  if (!others.empty())
    sentence += fmt::format("; {} {} an error of {} own too", fmt::join(others, ", "),
                            others.size() == 1 ? "has" : "have", others.size() == 1 ? "its" : "their");
  if (!right.empty())
    sentence += fmt::format("; {} {} what the inputs give, not what this {} would", fmt::join(right, ", "),
                            right.size() == 1 ? "is" : "are", name(own->field));
  return sentence;
}

}  // namespace assay
