#include "harness/cli/cut_gradients.h"

#include <algorithm>

#include "golden/sha256.h"
#include "harness/contract/layer.h"
#include "harness/contract/upstream.h"
#include "reference_cpu/reference_run.h"

namespace assay::cli {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Per expert of the part, whether all its rows are in it.
std::vector<bool> whole_experts(const Sizes& sizes, std::span<const std::int32_t> selected,
                                const Part& part) {
  std::vector<std::int64_t> lost(index(sizes.config.num_experts));
  for (const auto expert : selected) ++lost[index(expert)];
  for (const auto token : part.tokens)
    for (std::int64_t j = 0; j < sizes.config.top_k; ++j)
      --lost[index(selected[index(token * sizes.config.top_k + j)])];
  std::vector<bool> whole;
  for (const auto expert : part.experts) whole.push_back(lost[index(expert)] == 0);
  return whole;
}

/// The stored bits of expert `e`'s matrix of a part, as the part gives them.
std::vector<Bf16> matrix_of_part(Reference& reference, Field field, const Sizes& sizes, std::int64_t e) {
  const std::int64_t rows = matrix_rows_of(field, sizes);
  const RowRange matrix{e * rows, (e + 1) * rows};
  std::vector<Bf16> out;
  for (const auto& bits : reference.predicted(field, Mode::Isolated, matrix))
    out.push_back(Bf16{static_cast<std::uint16_t>(bits.bits)});
  if (!out.empty()) return out;
  for (const auto& x : reference.bounded(field, Mode::Isolated, matrix)) out.push_back(round_to_bf16(x.ref));
  return out;
}

/// The stored rows of whole experts, renumbered.
void keep_rows(const HeldField& from, const Part& part, const std::vector<bool>& whole, HeldField& to) {
  const std::int64_t rows = from.shape.size() < 3 ? 1 : from.shape[1];
  const auto width = index(from.shape.back());
  std::vector<Bf16> kept;
  std::size_t before = 0;
  for (const HeldRows& range : from.stored) {
    const auto values = from.rows.as<Bf16>().subspan(before * width, index(range.count) * width);
    before += index(range.count);
    const auto expert = std::ranges::find(part.experts, range.first / rows);
    const bool one_matrix = range.first / rows == (range.first + range.count - 1) / rows;
    if (expert == part.experts.end() || !one_matrix) continue;
    const auto e = expert - part.experts.begin();
    if (!whole[index(e)]) continue;
    to.stored.push_back({e * rows + range.first % rows, range.count});
    kept.insert(kept.end(), values.begin(), values.end());
  }
  to.rows = Tensor(DType::BFloat16, {static_cast<std::int64_t>(kept.size() / width), from.shape.back()});
  std::ranges::copy(kept, to.rows.as<Bf16>().begin());
}

bool sums_over_experts_rows(Field field) {
  const auto product = product_of(field);
  return product && row(*product).summed == Dim::S;
}

}  // namespace

void cut_weight_gradients(const Candidate& candidate, const Problem& problem,
                          std::span<const std::int32_t> selected, const Part& part,
                          const Problem& cut_problem, const CutRules& rules, Candidate& cut) {
  const Sizes sizes = problem.sizes();
  const Sizes cut_sizes = cut_problem.sizes();
  cut.held.clear();
  if (part == whole(sizes)) {
    cut.held = candidate.held;
    return;
  }
  const auto whole = whole_experts(sizes, selected, part);
  const bool all_tokens = std::ssize(part.tokens) == sizes.tokens;
  const bool some_whole = std::ranges::find(whole, true) != whole.end();
  const Upstream upstream = usable_upstream(cut_problem, cut.fields);
  std::unique_ptr<Reference> reference;
  const auto matrix = [&](Field field, std::int64_t e) {
    if (!reference)
      reference = make_reference(cut_problem, upstream, rules.contract, rules.accumulators, rules.predict);
    return matrix_of_part(*reference, field, cut_sizes, e);
  };
  FieldSet added;  // none of them feeds another
  for (const Field field : {Field::d_down_proj, Field::d_gate_up_proj}) {
    if (!candidate.fields.has(field) || cut.fields.has(field) || !some_whole) continue;
    const Tensor& from = candidate.fields.at(field);
    if (from.shape() != expected_shape(field, sizes) || from.dtype() != DType::BFloat16) continue;
    Tensor to(DType::BFloat16, expected_shape(field, cut_sizes));
    const auto size = index(matrix_rows_of(field, sizes) * width_of(field, sizes));
    for (std::size_t e = 0; e < whole.size(); ++e) {
      const auto out = to.as<Bf16>().subspan(e * size, size);
      if (whole[e])
        std::ranges::copy(from.as<Bf16>().subspan(index(part.experts[e]) * size, size), out.begin());
      else
        std::ranges::copy(matrix(field, static_cast<std::int64_t>(e)), out.begin());
    }
    added.set(field, std::move(to));
  }
  for (const HeldField& held : candidate.held) {
    if (!sums_over_experts_rows(held.field) || held.shape != expected_shape(held.field, sizes)) continue;
    if (!all_tokens && !some_whole) continue;
    HeldField kept{held.field, held.dtype, expected_shape(held.field, cut_sizes), {}, {}, {}};
    const auto as_stored = all_tokens ? std::vector<bool>(whole.size(), true) : whole;
    for (std::size_t e = 0; e < as_stored.size(); ++e)
      kept.sha256.push_back(as_stored[e] ? held.sha256[index(part.experts[e])]
                                         : sha256_hex(std::as_bytes(std::span<const Bf16>(
                                               matrix(held.field, static_cast<std::int64_t>(e))))));
    keep_rows(held, part, as_stored, kept);
    cut.held.push_back(std::move(kept));
  }
  for (const Field field : {Field::d_down_proj, Field::d_gate_up_proj})
    if (added.has(field)) cut.fields.set(field, std::move(added.at(field)));
}

}  // namespace assay::cli
