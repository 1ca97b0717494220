#include "harness/judge/invariance.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/counted_words.h"
#include "harness/contract/digits.h"
#include "harness/contract/layer.h"

namespace assay {
namespace {

ChangedField& field_of(InvarianceChange& change, Field field) {
  auto at = std::ranges::lower_bound(change.fields, field, {}, &ChangedField::field);
  if (at == change.fields.end() || at->field != field) at = change.fields.insert(at, ChangedField{field});
  return *at;
}

bool comparable(const Tensor& a, const Sizes& sizes_a, const Tensor& b, const Sizes& sizes_b, Field field) {
  return a.dtype() == b.dtype() && a.shape() == expected_shape(field, sizes_a) &&
         b.shape() == expected_shape(field, sizes_b);
}

bool differs(const InvarianceChange& change, Field field) {
  const auto one = std::ranges::find(change.fields, field, &ChangedField::field);
  return one != change.fields.end() && one->differing > 0;
}

std::string standing(const InvarianceChange& change) {
  if (!change.judged) return "not judged";
  if (*change.judged == Verdict::Passed) return "legal";
  return fmt::format("{}: {}", failed(*change.judged) ? "not legal" : "suspect", change.judged_headline);
}

bool among(const std::vector<Invariant>& promised, Invariant of) {
  return std::ranges::find(promised, of) != promised.end();
}

/// What a change that differs makes of its case.
Verdict verdict_of(const InvarianceChange& change, bool promised) {
  Verdict verdict = change.of == Invariant::Run ? Verdict::Unstable : Verdict::Passed;
  if (promised) verdict = Verdict::Failed;
  return worst(verdict, change.judged.value_or(Verdict::Passed));
}

std::string meaning(const InvarianceChange& change, bool promised) {
  if (promised) return fmt::format("{} was promised", name(change.of));
  if (change.of == Invariant::Run) return "unstable";
  if (change.judged && failed(*change.judged)) return "that run is wrong";
  if (change.judged && *change.judged != Verdict::Passed) return "that run is in doubt";
  return "information, nothing was promised";
}

}  // namespace

bool add_run(InvarianceChange& change, const FieldSet& base, const Sizes& sizes, const FieldSet& run,
             const Sizes& run_sizes, const RowNumbers& tokens) {
  const MatchedRows matched(base, sizes, run, run_sizes, tokens);
  FieldFlags other{};
  bool any = false;
  for (const FieldRow& field : kFields) {
    if (given(field.id) || !base.has(field.id) || !run.has(field.id)) continue;
    const Tensor& a = base.at(field.id);
    const Tensor& b = run.at(field.id);
    if (!comparable(a, sizes, b, run_sizes, field.id)) continue;
    const auto rows = matched.rows(field.id);
    if (!rows) continue;
    ChangedField& one = field_of(change, field.id);
    std::set<std::int64_t> differing;
    const std::int64_t width = matched_width(field.id, run_sizes);
    const std::int64_t before = one.differing;
    one.elements += visit_differences(a, b, *rows, width, [&](std::int64_t, std::int64_t in_run) {
      ++one.differing;
      differing.insert(matched.token_of(field.id, in_run / width));
    });
    // A slot of which the token took another expert is no row of the field: the selection tells.
    if (field.rows != RowsAre::Experts && field.rows != RowsAre::ExpertMatrix) {
      one.tokens += std::ranges::count_if(tokens, [](std::int64_t t) { return t >= 0; });
      one.differing_tokens += static_cast<std::int64_t>(differing.size());
    }
    other[static_cast<std::size_t>(field.id)] = one.differing > before;
    any = any || one.differing > before;
  }
  ++change.runs;
  change.differing_runs += any;
  if (any && !change.first)
    for (const Group group : {Group::Forward, Group::Backward})
      for (const Field field : kEvaluationOrder)
        if (!change.first && row(field).group == group && other[static_cast<std::size_t>(field)])
          change.first = field;
  return any;
}

std::string in_words(const InvarianceChange& change) {
  const auto& one = *std::ranges::find(change.fields, *change.first, &ChangedField::field);
  const std::string where = change.of == Invariant::Run
                                ? fmt::format("{} of {} further runs", change.differing_runs, change.runs)
                                : change.name;
  const std::string what =
      one.tokens > 0
          ? fmt::format("{} of {} tokens", grouped_digits(one.differing_tokens), grouped_digits(one.tokens))
          : fmt::format("{} of {} elements", grouped_digits(one.differing), grouped_digits(one.elements));
  return fmt::format("{} of {} in {} ({})", name(*change.first), what, where, standing(change));
}

void mark_invariance(CaseResult& result, const std::vector<InvarianceChange>& changes,
                     const std::vector<Invariant>& promised) {
  std::string told;
  std::int64_t runs = 0;
  for (const Invariant of : kInvariants) {
    std::vector<std::string> differing;
    for (const InvarianceChange& change : changes) {
      if (change.of != of) continue;
      runs += change.runs;
      if (!change.differs()) continue;
      differing.push_back(change.name);
      const bool broken = among(promised, of);
      const Verdict verdict = verdict_of(change, broken);
      // The first is told in the headline, the others in remarks.
      const std::string sentence = fmt::format("{}: {}", in_words(change), meaning(change, broken));
      if (differing.size() == 1) told += fmt::format("{}{}", told.empty() ? "" : "; ", sentence);
      result.remarks.push_back("other bits: " + sentence);
      result.verdict = worst(result.verdict, verdict);
      for (FieldResult& field : result.fields) {
        if (!differs(change, field.field)) continue;
        if (of == Invariant::Run || broken)
          field.verdict = worst(field.verdict, broken ? Verdict::Failed : Verdict::Unstable);
        field.notes.push_back(fmt::format("{}: other bits ({})", change.name, meaning(change, broken)));
      }
    }
    if (differing.size() > 1)
      told += fmt::format(" (and in {})", fmt::join(std::span(differing).subspan(1), ", "));
  }
  if (told.empty())
    told = fmt::format("the same bits run to run, in every batch and order: {}, {}",
                       counted(std::ssize(changes), "change"), counted(runs, "run"));
  else
    told = "other bits: " + told;
  result.headline = fmt::format("{}; by itself: {}", told, result.headline);
}

}  // namespace assay
