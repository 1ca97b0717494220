#include "reference_cpu/product/split_search.h"

#include <algorithm>
#include <numeric>

namespace assay {
namespace {

constexpr std::int64_t kTile = 64;  // cuBLAS's K tile
constexpr std::int64_t kMostParts = 16;
constexpr std::size_t kSampledRows = 8;

std::int64_t count_differing(std::span<const PredictedValue> predicted, std::span<const Bf16> target) {
  std::int64_t differing = 0;
  for (std::size_t i = 0; i < target.size(); ++i)
    differing += !predicted[i].undetermined && round_to_bf16(predicted[i].value) != target[i];
  return differing;
}

template <class T>
LargeVector<T> take_rows(std::span<const T> from, std::span<const std::int64_t> rows, std::size_t width) {
  LargeVector<T> out;
  for (const auto r : rows) {
    const auto row = from.subspan(static_cast<std::size_t>(r) * width, width);
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

/// The product of `field` for some of its rows only (ascending).
Values<Predicted> predict_rows(Field field, const Layer& layer, const Values<Predicted>* intermediate,
                               const Accumulator& accumulator, std::span<const std::int64_t> rows) {
  Layer sample = layer;
  sample.accumulators = {accumulator, accumulator, accumulator};
  if (field == Field::router_logits) {
    const auto width = layer.config().hidden_size;
    const auto input = take_rows(layer.problem->input.as<Bf16>(), rows, static_cast<std::size_t>(width));
    Problem problem = *layer.problem;
    problem.batch = 1;
    problem.sequence = static_cast<std::int64_t>(rows.size());
    problem.input = Tensor(DType::BFloat16, {problem.sequence, width});
    std::ranges::copy(input, problem.input.as<Bf16>().begin());
    sample.problem = &problem;
    return router_logits<Predicted>(sample);
  }
  sample.routing.gather.clear();
  sample.routing.offsets.assign(1, 0);
  for (std::size_t e = 0; e + 1 < layer.routing.offsets.size(); ++e) {
    for (const auto r : rows)
      if (r >= layer.routing.offsets[e] && r < layer.routing.offsets[e + 1])
        sample.routing.gather.push_back(layer.routing.gather[static_cast<std::size_t>(r)]);
    sample.routing.offsets.push_back(static_cast<std::int64_t>(sample.routing.gather.size()));
  }
  if (field == Field::first_gemm) return first_gemm<Predicted>(sample);
  return second_gemm<Predicted>(sample,
                                take_rows(std::span<const PredictedValue>(*intermediate), rows,
                                          static_cast<std::size_t>(layer.config().moe_intermediate_size)));
}

}  // namespace

std::vector<std::vector<std::int64_t>> candidate_splits(std::int64_t k) {
  std::vector<std::vector<std::int64_t>> all;
  const std::int64_t tiles = (k + kTile - 1) / kTile;
  for (std::int64_t parts = 2; parts <= std::min(kMostParts, tiles); ++parts) {
    const std::int64_t length = (tiles + parts - 1) / parts * kTile;
    std::vector<std::int64_t> split;
    for (std::int64_t begin = 0; begin < k; begin += length) split.push_back(std::min(length, k - begin));
    if (split.size() > 1 && std::ranges::find(all, split) == all.end()) all.push_back(split);
  }
  return all;
}

std::optional<Accumulator> find_split(Field field, const Layer& layer, const Values<Predicted>* intermediate,
                                      const Tensor& target, const Values<Predicted>& plain) {
  const auto bits = target.as<Bf16>();
  const auto width = static_cast<std::size_t>(target.shape()[1]);
  std::vector<std::pair<std::int64_t, std::int64_t>> worst;  // differing elements, row
  for (std::size_t r = 0; r * width < bits.size(); ++r) {
    const auto differing =
        count_differing(std::span(plain).subspan(r * width, width), bits.subspan(r * width, width));
    if (differing > 0) worst.emplace_back(-differing, static_cast<std::int64_t>(r));
  }
  if (worst.empty()) return std::nullopt;
  std::ranges::sort(worst);
  std::vector<std::int64_t> sample;
  for (std::size_t i = 0; i < std::min(kSampledRows, worst.size()); ++i) sample.push_back(worst[i].second);
  std::ranges::sort(sample);
  const auto sample_bits = take_rows(bits, sample, width);
  std::vector<std::int64_t> every_row(bits.size() / width);
  std::iota(every_row.begin(), every_row.end(), 0);
  const std::int64_t k =
      field == Field::second_gemm ? layer.config().moe_intermediate_size : layer.config().hidden_size;
  for (const auto& split : candidate_splits(k)) {
    const Accumulator tried{AccumulatorKind::Hopper, split};
    if (count_differing(predict_rows(field, layer, intermediate, tried, sample), sample_bits) == 0 &&
        count_differing(predict_rows(field, layer, intermediate, tried, every_row), bits) == 0)
      return tried;
  }
  return std::nullopt;
}

Accumulator measured_split(Field field, const MoeConfig& config, std::int64_t rows, bool per_expert_cublas) {
  struct Row {
    Field field;
    std::int64_t k, n, most_rows;
    bool per_expert;
    std::vector<std::int64_t> split;
  };
  static const Row table[] = {
      {Field::router_logits, 4096, 128, 256, false, {1408, 1408, 1280}},
      {Field::first_gemm, 4096, 3072, 32, true, {2048, 2048}},
  };
  const std::int64_t k = field == Field::second_gemm ? config.moe_intermediate_size : config.hidden_size;
  const std::int64_t n = field == Field::router_logits ? config.num_experts
                         : field == Field::first_gemm  ? 2 * config.moe_intermediate_size
                                                       : config.hidden_size;
  for (const auto& row : table)
    if (row.field == field && row.k == k && row.n == n && rows <= row.most_rows &&
        (!row.per_expert || per_expert_cublas))
      return {AccumulatorKind::Hopper, row.split};
  return {AccumulatorKind::Hopper, {}};
}

}  // namespace assay
