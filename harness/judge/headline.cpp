#include "harness/judge/headline.h"

#include <algorithm>
#include <cmath>
#include <iterator>

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
  constexpr std::string_view kNamed = ", which was not written, ";
  const std::string said = in_words(cause);
  const auto named = cause.every_bit && cause.unwritten ? said.find(kNamed) : std::string::npos;
  return named == std::string::npos ? said : said.substr(named + kNamed.size());
}

/// What breaks a list of slots, where no cause gives the wrong entries.
std::string broken_list(const std::vector<Cause>& causes) {
  const auto broken = std::ranges::find(causes, "no_permutation", &Cause::hypothesis);
  return broken == causes.end() ? "" : "; " + broken->sentence;
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
      return fmt::format("{} wrong{}{}", rejected_in_words(own), where, broken_list(field.causes));
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
std::optional<std::string> explained_before(const CaseResult& result, const FieldResult& own) {
  if (own.causes.empty() || !own.causes.front().every_bit || !own.causes.front().unwritten)
    return std::nullopt;
  const Field before = *own.causes.front().unwritten;
  const FieldResult* written = find_field(result, before);
  const bool rounded = written != nullptr && compared(written->verdict);
  return std::string(name(before)) + (rounded ? " before its rounding" : "");
}

/// Whether what the cause says may as well have happened in a field before it that was not written: rows that
/// are zero, NaN or another's look alike there, and weights that were not written are seen here alone.
bool may_come_from_before(const FieldResult& own, std::string_view hypothesis) {
  constexpr std::string_view kRows[] = {"zeros", "not_written", "moved_rows", "wrong_token"};
  constexpr std::string_view kWeights[] = {"weights_of_token", "weights_permuted", "one_weight_for_all"};
  if (own.upstream.empty()) return false;
  return std::ranges::find(kRows, hypothesis) != std::end(kRows) ||
         (own.upstream.find(name(Field::topk_weights)) != std::string::npos &&
          std::ranges::find(kWeights, hypothesis) != std::end(kWeights));
}

/// Whether the cause that gives every bit lies in the field itself.
bool explained_in_itself(const FieldResult& own) {
  return !own.causes.empty() && own.causes.front().every_bit && !own.causes.front().unwritten &&
         !may_come_from_before(own, own.causes.front().hypothesis);
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

/// Computed fields that nobody wrote between the last ones that were and this one.
void add_unwritten(const CaseResult& result, Field field, std::vector<Field>& all) {
  const PrecisionContract& contract = contract_of(result);
  for (const auto& read : find_step(field, contract)->reads) {
    if (!read || given(*read) || row(*read).dtype == DType::Int32) continue;
    const FieldResult* written = find_field(result, *read);
    if (written != nullptr && compared(written->verdict) && in_memory(field, *read, contract)) continue;
    if (std::ranges::find(all, *read) == all.end()) all.push_back(*read);
    add_unwritten(result, *read, all);
  }
}

/// Red fields beside the one that is accused, by what can be said of them.
class Company {
 public:
  Company(const CaseResult& result, const FieldResult& own) : result_(result), own_(own) {
    add_unwritten(result, own.field, span_);
    for (const auto& field : result.fields) {
      if (field.isolated.verdict == Verdict::NotJudged && field.verdict <= Verdict::Mistrusted)
        right_.push_back(name(field.field));
      if (field.field == own.field || field.verdict <= Verdict::Passed) continue;
      if (!own_failure(field) && !own_suspicion(field)) continue;
      if (may_share(field))
        same_.push_back(name(field.field));
      else
        others_.push_back(field.field);
    }
    for (const auto& field : result.fields) {
      if (field.field == own.field || field.verdict <= Verdict::Passed) continue;
      if (own_failure(field) || own_suspicion(field)) continue;
      // Wrong routing may have touched nothing: what follows from an error behind it has that one.
      const bool elsewhere = !follows(field.field) || row(own.field).dtype == DType::Int32;
      const bool of_others = elsewhere && !may_share(field) && std::ranges::any_of(others_, [&](Field other) {
                               return descends_from(field.field, other, contract_of(result));
                             });
      (of_others ? theirs_ : inherited_).push_back(name(field.field));
    }
  }

  std::string in_words() const {
    const auto listed = [](const std::vector<std::string_view>& names) { return fmt::join(names, ", "); };
    const auto verb = [](std::size_t count, std::string_view one, std::string_view many) {
      return count == 1 ? one : many;
    };
    std::string all;
    if (!inherited_.empty())
      all += fmt::format("; {} {} it", listed(inherited_), verb(inherited_.size(), "inherits", "inherit"));
    if (!same_.empty()) all += fmt::format("; {} may have it from there, too", listed(same_));
    if (!others_.empty()) {
      std::vector<std::string_view> names;
      for (const Field other : others_) names.push_back(name(other));
      all += fmt::format("; {} an error of {} own too",
                         fmt::format("{} {}", listed(names), verb(names.size(), "has", "have")),
                         verb(names.size(), "its", "their"));
    }
    if (!theirs_.empty())
      all += fmt::format(", which {} {}", listed(theirs_), verb(theirs_.size(), "inherits", "inherit"));
    if (!right_.empty())
      all += fmt::format("; {} {} what the inputs give, not what this {} would", listed(right_),
                         verb(right_.size(), "is", "are"), name(own_.field));
    return all;
  }

 private:
  /// Behind the same fields that were not written, or given the same: what is wrong there reaches both.
  bool may_share(const FieldResult& field) const {
    if (from_outside() && row(field.field).group == Group::Backward) return true;
    if (explained_in_itself(field)) return false;
    std::vector<Field> span;
    add_unwritten(result_, field.field, span);
    return std::ranges::any_of(span, [&](Field one) { return std::ranges::find(span_, one) != span_.end(); });
  }

  /// Whether the whole backward pass was given something else: another routing, another gradient.
  bool from_outside() const {
    const Cause* cause = named_cause(own_.causes);
    return cause != nullptr &&
           (cause->hypothesis == "other_routing" || cause->hypothesis == "other_gradient");
  }

  /// Of the accused field, or of one in its span.
  bool follows(Field field) const {
    const PrecisionContract& contract = contract_of(result_);
    return descends_from(field, own_.field, contract) ||
           std::ranges::any_of(span_, [&](Field one) { return descends_from(field, one, contract); });
  }

  const CaseResult& result_;
  const FieldResult& own_;
  std::vector<Field> span_;
  std::vector<std::string_view> inherited_;
  std::vector<std::string_view> same_;
  std::vector<Field> others_;
  std::vector<std::string_view> theirs_;
  std::vector<std::string_view> right_;
};

/// "first_gemm is the first stage with an error of its own: ", or which span holds the first error.
std::string accusation(const CaseResult& result, const FieldResult& own) {
  if (const auto before = explained_before(result, own))
    return fmt::format("{}, which was not written, is the first stage with an error of its own, seen in {}: ",
                       *before, name(own.field));
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

/// "all 21 fields pass"
std::string all_pass(std::size_t fields) {
  return fields == 1 ? "the field passes" : fmt::format("all {} fields pass", fields);
}

/// Fields whose checks a wrong copy of the reference would have passed, and nothing worse.
std::string mistrusted(const std::vector<std::string_view>& bad, std::size_t fields) {
  return fmt::format(
      "{}, but the check{} of {} could not have failed: a wrong copy of the reference passes too",
      all_pass(fields), bad.size() == 1 ? "" : "s", fmt::join(bad, ", "));
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
  if (const auto before = explained_before(result, own)) return *before;
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
    std::string sentence = all_pass(compared_fields.size());
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
  return accusation(result, *own) + in_words(*own) + Company(result, *own).in_words();
}

}  // namespace assay
