#include "harness/judge/diff.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/counted_words.h"
#include "harness/contract/digits.h"
#include "harness/contract/layer.h"
#include "harness/contract/stored.h"
#include "harness/judge/contract_fit.h"
#include "harness/judge/matched_rows.h"

namespace assay {
namespace {

double value(const Tensor& tensor, std::int64_t i) {
  const auto at = static_cast<std::size_t>(i);
  switch (tensor.dtype()) {
    case DType::BFloat16: return to_float(tensor.as<Bf16>()[at]);
    case DType::Int32: return tensor.as<std::int32_t>()[at];
    case DType::Float32: return tensor.as<float>()[at];
    case DType::Float64: break;
  }
  return tensor.as<double>()[at];
}

std::vector<std::pair<std::string, std::int64_t>> place(Field field, const Shape& shape, std::int64_t flat) {
  std::vector<std::pair<std::string, std::int64_t>> all;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    all.emplace(all.begin(), std::string(axis_name(field, axis)), flat % shape[axis]);
    flat /= shape[axis];
  }
  return all;
}

/// The layer in float64 on a candidate's routing; values in the candidate's rows.
class InFloat64 {
 public:
  InFloat64(const Problem& problem, const Candidate& candidate, const ReferenceFactory& factory)
      : problem_(problem), candidate_(candidate) {
    constexpr Field kRouting = Field::selected_experts;
    upstream_.fields = &candidate.fields;
    if (candidate.fields.has(kRouting)) {
      const Tensor& selected = candidate.fields.at(kRouting);
      const auto legal = [&](std::int32_t e) { return e >= 0 && e < problem.config.num_experts; };
      upstream_.usable[static_cast<std::size_t>(kRouting)] =
          selected.dtype() == DType::Int32 && selected.shape() == expected_shape(kRouting, problem.sizes()) &&
          std::ranges::all_of(selected.as<std::int32_t>(), legal);
    }
    reference_ = factory(problem, upstream_, find_contract("fp64"), accumulators_, false, nullptr);
    const Routing& routing = reference_->routing();
    const auto integers = [&](Field field, const std::vector<std::int32_t>& values) {
      Tensor tensor(DType::Int32, expected_shape(field, problem.sizes()));
      std::ranges::copy(values, tensor.as<std::int32_t>().begin());
      routing_.set(field, std::move(tensor));
    };
    integers(kRouting, routing.selected);
    integers(Field::gather_indices, routing.gather);
  }

  /// [elements of the field], NaN where it has no counterpart.
  std::vector<double> values(Field field) {
    const Sizes sizes = problem_.sizes();
    std::vector<double> all;
    for (const RowRange& block : blocks_of(field, sizes))
      for (const Interval& one : reference_->bounded(field, Mode::Chained, block)) all.push_back(one.ref);
    const MatchedRows matched(routing_, sizes, candidate_.fields, sizes, same_tokens(sizes.tokens));
    const auto rows = matched.rows(field);
    if (!rows) return all;
    const std::int64_t width = matched_width(field, sizes);
    std::vector<double> mine(all.size(), std::numeric_limits<double>::quiet_NaN());
    for (std::size_t r = 0; r < rows->size(); ++r)
      if ((*rows)[r] >= 0)
        std::copy_n(all.begin() + (*rows)[r] * width, width,
                    mine.begin() + static_cast<std::ptrdiff_t>(r) * width);
    return mine;
  }

 private:
  const Problem& problem_;
  const Candidate& candidate_;
  Upstream upstream_;
  const Accumulators accumulators_;
  std::unique_ptr<Reference> reference_;
  FieldSet routing_;
};

std::string found(const Tensor& tensor) {
  return fmt::format("{} {}", row(tensor.dtype()).name, to_string(tensor.shape()));
}

std::string why_incomparable(Field field, const Tensor& a, const Tensor& b, const Sizes& sizes) {
  const Shape shape = expected_shape(field, sizes);
  if (a.shape() == shape && b.shape() == shape && a.dtype() == b.dtype()) return "";
  return fmt::format("expected {} in both, found {} in A and {} in B", to_string(shape), found(a), found(b));
}

Verdict verdict_of(const CaseResult& judged, Field field) {
  const auto one = std::ranges::find(judged.fields, field, &FieldResult::field);
  return one == judged.fields.end() ? Verdict::NotMaterialised : one->verdict;
}

using Pairs = std::vector<std::pair<std::int64_t, std::int64_t>>;  // flat in A, flat in B

void compare_bits(FieldParting& parting, const Tensor& a, const Tensor& b, const MatchedRows& matched,
                  const Sizes& sizes, Pairs& differing) {
  const std::int64_t width = matched_width(parting.field, sizes);
  const auto rows =
      matched.rows(parting.field).value_or(same_tokens(a.size() / std::max<std::int64_t>(width, 1)));
  const auto compared = visit_differences(a, b, rows, width, [&](std::int64_t in_a, std::int64_t in_b) {
    differing.emplace_back(in_a, in_b);
    if (a.dtype() != DType::BFloat16 && a.dtype() != DType::Float32) return;
    const Stored x = StoredSpan(a, a.dtype())[static_cast<std::size_t>(in_a)];
    const Stored y = StoredSpan(b, b.dtype())[static_cast<std::size_t>(in_b)];
    if (x.finite() && y.finite())
      parting.largest_ulps = std::max(parting.largest_ulps, std::abs(x.ordinal() - y.ordinal()));
  });
  parting.elements = a.size();
  parting.unmatched = b.size() - compared;
  parting.differing = static_cast<std::int64_t>(differing.size());
  if (differing.empty()) return;
  const auto element = [&](const Pairs::value_type& pair) {
    const auto [in_a, in_b] = pair;
    return PartingElement{place(parting.field, a.shape(), in_a), in_a, in_b, value(a, in_a), value(b, in_b)};
  };
  const auto apart = [&](const Pairs::value_type& pair) {
    const double distance = std::fabs(value(a, pair.first) - value(b, pair.second));
    return std::isfinite(distance) ? distance : -1.0;
  };
  parting.first = element(*std::ranges::min_element(differing));
  if (const auto& furthest = *std::ranges::max_element(differing, {}, apart); apart(furthest) >= 0)
    parting.furthest = element(furthest);
}

/// Of fields that both hold by hashes, one per expert or one for all.
void compare_hashes(FieldParting& parting, const Candidate& a, const Candidate& b) {
  const HeldField* x = a.held_field(parting.field);
  const HeldField* y = b.held_field(parting.field);
  if (x == nullptr || y == nullptr || x->dtype != y->dtype || x->shape != y->shape ||
      x->sha256.size() != y->sha256.size())
    return;
  parting.elements = element_count(x->shape);
  parting.hashes = static_cast<std::int64_t>(x->sha256.size());
  for (std::size_t i = 0; i < x->sha256.size(); ++i) parting.differing_hashes += x->sha256[i] != y->sha256[i];
}

/// Elements that are not finite, or have no counterpart, are left out.
void compare_distances(FieldParting& parting, const Tensor& a, const Tensor& b, const Pairs& differing,
                       const std::vector<double>& float64_a, const std::vector<double>& float64_b) {
  for (auto* one : {&parting.first, &parting.furthest}) {
    if (!*one) continue;
    (*one)->float64_a = float64_a[static_cast<std::size_t>((*one)->in_a)];
    (*one)->float64_b = float64_b[static_cast<std::size_t>((*one)->in_b)];
  }
  double sum_a = 0.0;
  double sum_b = 0.0;
  std::int64_t count = 0;
  for (const auto& [in_a, in_b] : differing) {
    const double off_a = std::fabs(value(a, in_a) - float64_a[static_cast<std::size_t>(in_a)]);
    const double off_b = std::fabs(value(b, in_b) - float64_b[static_cast<std::size_t>(in_b)]);
    if (!std::isfinite(off_a) || !std::isfinite(off_b)) continue;
    ++count;
    sum_a += off_a * off_a;
    sum_b += off_b * off_b;
    parting.nearer_a += off_a < off_b;
    parting.nearer_b += off_b < off_a;
  }
  if (count == 0) return;
  parting.rms_a = std::sqrt(sum_a / static_cast<double>(count));
  parting.rms_b = std::sqrt(sum_b / static_cast<double>(count));
}

/// Forward before backward, which never reaches it.
std::optional<Field> first_parting(const std::vector<FieldParting>& fields) {
  for (const Group group : {Group::Forward, Group::Backward})
    for (const Field field : kEvaluationOrder) {
      const auto one = std::ranges::find(fields, field, &FieldParting::field);
      if (row(field).group == group && one != fields.end() && one->parts()) return field;
    }
  return std::nullopt;
}

std::string standing(std::string_view which, const PartingSide& side) {
  if (side.legal()) return fmt::format("{} is legal under {}", which, fmt::join(side.legal_under, ", "));
  const char* word = failed(side.judged.verdict) ? "not legal" : "suspect";
  return fmt::format("{} is {} (nearest to {}): {}", which, word, side.judged.contract, side.judged.headline);
}

std::string standings(const PartingSide& a, const PartingSide& b) {
  if (!a.legal() || !b.legal()) return fmt::format("{}; {}", standing("A", a), standing("B", b));
  if (a.legal_under == b.legal_under)
    return fmt::format("both are legal under {}", fmt::join(a.legal_under, ", "));
  return fmt::format("both are legal, A under {}, B under {}", fmt::join(a.legal_under, ", "),
                     fmt::join(b.legal_under, ", "));
}

/// Whether a point that this field tells of shows in the first that parts: there, or where not both wrote it.
bool tells(const Parting& all, Field told_by) {
  const auto found = std::ranges::find(all.fields, told_by, &FieldParting::field);
  const bool both = found != all.fields.end() && found->compared();
  return told_by == all.first || (!both && descends_from(*all.first, told_by));
}

std::string what_separates(const Parting& all, Field first) {
  if (!all.a.legal() || !all.b.legal()) return "";
  if (!all.separating.empty()) return fmt::format("; in A {}", fmt::join(all.separating, "; "));
  if (first == Field::selected_experts) return "";
  if (row(first).group == Group::Backward && all.a.judged.contract != all.b.judged.contract)
    return fmt::format("; their contracts {} and {} differ in the backward pass", all.a.judged.contract,
                       all.b.judged.contract);
  if (product_of(first)) return "; no rounding point separates them: the product's sums take another order";
  return "; no rounding point separates them: the stage's arithmetic differs within its bound";
}

std::string nearer_words(const FieldParting& parting) {
  if (!parting.rms_a) return "";
  if (*parting.rms_a == *parting.rms_b) return "; both are equally near to float64 there";
  return fmt::format("; {} is nearer to float64 there", *parting.rms_a < *parting.rms_b ? "A" : "B");
}

std::string parted_words(const FieldParting& one, const RoutingAgreement& routing) {
  if (!one.incomparable.empty()) return one.incomparable;
  if (one.differing_hashes > 0)
    return fmt::format("{} of {} hashes", grouped_digits(one.differing_hashes), grouped_digits(one.hashes));
  if (one.field == Field::selected_experts) {
    const auto ties = std::ranges::count_if(routing.partings, [](const RoutingParting& token) {
      return token.gap_a == 0.0 || token.gap_b == 0.0;
    });
    const auto others = routing.tokens - routing.same_sets;
    if (others == 0)
      return fmt::format("{} of {} tokens list the same experts in another order",
                         grouped_digits(routing.tokens - routing.same_order), grouped_digits(routing.tokens));
    return fmt::format("{} of {} tokens take other experts, {} of them at a tie", grouped_digits(others),
                       grouped_digits(routing.tokens), grouped_digits(ties));
  }
  std::string words =
      fmt::format("{} of {} elements", grouped_digits(one.differing), grouped_digits(one.elements));
  if (one.largest_ulps > 0)
    words += fmt::format(", by at most {} ulp{}", grouped_digits(one.largest_ulps),
                         one.largest_ulps == 1 ? "" : "s");
  std::string at;
  if (one.first)
    for (const auto& [axis, index] : one.first->at)
      at += fmt::format("{}{} {}", at.empty() ? "" : ", ", axis, index);
  return words + (at.empty() ? "" : fmt::format(", first at {}", at));
}

std::string sentence(const Parting& all) {
  const auto compared = std::ranges::count_if(all.fields, &FieldParting::compared);
  if (!all.first) {
    std::int64_t elements = 0;
    for (const auto& one : all.fields)
      if (one.compared()) elements += one.elements;
    if (compared == 0) return "A and B have no field in common: nothing was compared";
    return fmt::format("A and B are bit for bit the same in {} with {}; {}", counted(compared, "field"),
                       counted(elements, "element"), standings(all.a, all.b));
  }
  const auto& one = *std::ranges::find(all.fields, *all.first, &FieldParting::field);
  return fmt::format("A and B part first at {}: {}; {}{}{}", name(*all.first), parted_words(one, all.routing),
                     standings(all.a, all.b), what_separates(all, *all.first), nearer_words(one));
}

}  // namespace

Parting diff(const Problem& problem, JudgedSide a, JudgedSide b, const ReferenceFactory& reference) {
  const Sizes sizes = problem.sizes();
  const FieldSet& of_a = a.candidate->fields;
  const FieldSet& of_b = b.candidate->fields;
  const MatchedRows matched(of_a, sizes, of_b, sizes, same_tokens(sizes.tokens));
  Parting all;
  std::unique_ptr<InFloat64> float64_a;
  std::unique_ptr<InFloat64> float64_b;
  for (const FieldRow& field : kFields) {
    if (given(field.id) || (!a.candidate->holds(field.id) && !b.candidate->holds(field.id))) continue;
    FieldParting one;
    one.field = field.id;
    one.in_a = of_a.has(field.id);
    one.in_b = of_b.has(field.id);
    one.verdict_a = verdict_of(a.side.judged, field.id);
    one.verdict_b = verdict_of(b.side.judged, field.id);
    compare_hashes(one, *a.candidate, *b.candidate);
    if (one.in_a && one.in_b) {
      const Tensor& x = of_a.at(field.id);
      const Tensor& y = of_b.at(field.id);
      one.incomparable = why_incomparable(field.id, x, y, sizes);
      Pairs differing;
      if (one.incomparable.empty()) compare_bits(one, x, y, matched, sizes, differing);
      if (!differing.empty() && field.dtype != DType::Int32) {
        if (!float64_a) float64_a = std::make_unique<InFloat64>(problem, *a.candidate, reference);
        if (!float64_b) float64_b = std::make_unique<InFloat64>(problem, *b.candidate, reference);
        compare_distances(one, x, y, differing, float64_a->values(field.id), float64_b->values(field.id));
      }
    }
    all.fields.push_back(std::move(one));
  }
  all.routing = compare_routing(of_a, of_b, sizes);
  all.first = first_parting(all.fields);
  if (all.first && a.fitted && b.fitted) {
    PrecisionContract other = *b.fitted;
    other.name = "B";
    for (PointApart& point : points_apart(*a.fitted, other, has_gradients(of_a) && has_gradients(of_b)))
      (tells(all, point.told_by) ? all.separating : all.separating_others)
          .push_back(std::move(point.sentence));
    if (all.separating.empty()) all.separating.swap(all.separating_others);
  }
  all.a = std::move(a.side);
  all.b = std::move(b.side);
  all.sentence = sentence(all);
  return all;
}

std::optional<std::string> other_problem(const Problem& a, const Problem& b) {
  if (a.config != b.config)
    return fmt::format("A and B are of different problems: {} in A, {} in B", to_string(a.config),
                       to_string(b.config));
  if (a.sizes().tokens != b.sizes().tokens)
    return fmt::format("A and B are of different problems: {} in A, {} in B",
                       counted(a.sizes().tokens, "token"), b.sizes().tokens);
  const auto same = [](const Tensor& x, const Tensor& y) {
    return x.bytes().size() == y.bytes().size() &&
           std::memcmp(x.bytes().data(), y.bytes().data(), x.bytes().size()) == 0;
  };
  const auto differs = [](Field field) {
    return fmt::format("A and B are of different problems: {} has other values in B", name(field));
  };
  if (!same(a.input, b.input)) return differs(Field::input_hidden_states);
  if (!same(a.gate, b.gate)) return differs(Field::gate);
  if (a.output_gradient.size() > 0 && b.output_gradient.size() > 0 &&
      !same(a.output_gradient, b.output_gradient))
    return differs(Field::d_hidden_states);
  for (const Field field : {Field::gate_up_proj, Field::down_proj}) {
    const auto i = static_cast<std::size_t>(field);
    if (a.generators[i] && a.generators[i] == b.generators[i]) continue;
    for (std::int64_t expert = 0; expert < a.config.num_experts; ++expert) {
      const auto x = a.experts(field, expert);
      const auto y = b.experts(field, expert);
      if (!std::ranges::equal(x.values, y.values))
        return fmt::format("{} (expert {})", differs(field), expert);
    }
  }
  return std::nullopt;
}

}  // namespace assay
