// A reference whose answers are written down, for tests of those who ask one.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "harness/contract/error.h"
#include "harness/contract/reference.h"

namespace assay {

/// What a FakeReference answers, and what it was asked. Fields without an entry are not to be asked for.
struct WrittenAnswers {
  using Asked = std::pair<Field, Mode>;
  Sizes sizes;
  std::map<Asked, std::vector<Interval>> intervals;     // [elements of the whole field]
  std::map<Asked, std::vector<PredictedBits>> bits;     // the same; none: nothing is predicted
  std::map<Field, std::vector<std::int32_t>> integers;  // selected_experts among them: the prediction
  std::map<Field, std::string> isolated_from;           // "first_gemm": fields that are not written
  std::map<Field, std::vector<Cause>> causes;
  std::set<Field> same_in_both_modes;
  bool words_at_once = false;  // the predicted bits are to be had as words, too
  Routing routing;

  std::vector<std::pair<Asked, RowRange>> asked;  // for intervals, in order
  std::vector<Field> asked_for_causes;

  /// The same interval around each value in both modes.
  void expect(Field field, const std::vector<double>& values, double delta, double noise = 0.0) {
    for (const Mode mode : {Mode::Isolated, Mode::Chained}) {
      auto& of_field = intervals[{field, mode}];
      of_field.clear();
      for (const double x : values) of_field.push_back({x, x - delta, x + delta, noise});
    }
  }

  /// Predicts the bits of these bf16 values, in both modes.
  void predict(Field field, const std::vector<double>& values) {
    for (const Mode mode : {Mode::Isolated, Mode::Chained}) {
      auto& of_field = bits[{field, mode}];
      of_field.clear();
      for (const double x : values) of_field.push_back({round_to_bf16(x).bits, false});
    }
  }
};

/// `answers` outlives it.
class FakeReference final : public Reference {
 public:
  FakeReference(WrittenAnswers& answers, bool predict) : answers_(answers), predict_(predict) {}

  LargeVector<Interval> bounded(Field field, Mode mode, RowRange rows) override {
    answers_.asked.push_back({{field, mode}, rows});
    return rows_of_answer(answers_.intervals, field, mode, rows);
  }
  LargeVector<PredictedBits> predicted(Field field, Mode mode, RowRange rows) override {
    if (!predict_ || !answers_.bits.contains({field, mode})) return {};
    return rows_of_answer(answers_.bits, field, mode, rows);
  }
  std::optional<LargeVector<std::uint16_t>> predicted_words(Field field, Mode mode, RowRange rows) override {
    if (!answers_.words_at_once) return {};
    LargeVector<std::uint16_t> words;
    for (const PredictedBits& x : predicted(field, mode, rows)) {
      if (x.undetermined) return {};
      words.push_back(static_cast<std::uint16_t>(x.bits));
    }
    return words;
  }
  std::vector<std::int32_t> expected_integers(Field field) override { return answers_.integers.at(field); }
  std::vector<std::int32_t> predicted_selection(Mode, std::vector<bool>& undetermined_tokens) override {
    undetermined_tokens.assign(static_cast<std::size_t>(answers_.sizes.tokens), false);
    return answers_.integers.at(Field::selected_experts);
  }
  Store store(Field) const override { return Store::Bf16; }
  BoundAccount bound_account(Field, Mode, std::span<const std::int64_t>) override {
    return {"written down", "none", {}};
  }
  bool same_in_both_modes(Field field) const override { return answers_.same_in_both_modes.contains(field); }
  std::string isolated_from(Field field) const override {
    const auto found = answers_.isolated_from.find(field);
    return found == answers_.isolated_from.end() ? "" : found->second;
  }
  const Routing& routing() const override { return answers_.routing; }
  std::vector<Cause> causes(Field field) override {
    answers_.asked_for_causes.push_back(field);
    return answers_.causes[field];
  }
  std::string accumulator(Field) const override { return "hopper"; }

 private:
  template <class Answer>
  LargeVector<Answer> rows_of_answer(const std::map<WrittenAnswers::Asked, std::vector<Answer>>& of,
                                     Field field, Mode mode, RowRange rows) const {
    const auto found = of.find({field, mode});
    if (found == of.end()) throw InputError("no answer is written down for " + std::string(name(field)));
    const std::int64_t width = width_of(field, answers_.sizes);
    const auto begin = found->second.begin();
    return {begin + rows.begin * width, begin + rows.end * width};
  }

  WrittenAnswers& answers_;
  bool predict_;
};

/// Makes FakeReferences of `answers`, which outlives what they make.
inline ReferenceFactory fake_references(WrittenAnswers& answers) {
  return [&answers](const Problem&, const Upstream&, const PrecisionContract&, const Accumulators&,
                    bool predict, const Engine*) -> std::unique_ptr<Reference> {
    return std::make_unique<FakeReference>(answers, predict);
  };
}

}  // namespace assay
