#include "reference_cpu/product/split_search.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "reference_cpu/planted/planted.h"
#include "reference_cpu/product/layer_product.h"

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

/// The product for some of its rows only (ascending).
Values<Predicted> predict_rows(ProductId product, const Layer& layer, const Values<Predicted>* left,
                               const Accumulator& accumulator, std::span<const std::int64_t> rows) {
  auto prepared = prepare_product<Predicted>(product, layer, left);
  keep_rows(prepared, rows);
  prepared.product.accumulator = accumulator;
  return planted_product(prepared.product);
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

std::pair<std::vector<std::int64_t>, std::span<const Bf16>> known_bits(Field field, const Upstream& upstream,
                                                                       const Sizes& sizes) {
  std::vector<std::int64_t> rows;
  if (upstream.has(field)) {
    rows.resize(static_cast<std::size_t>(rows_of(field, sizes)));
    std::iota(rows.begin(), rows.end(), 0);
    return {std::move(rows), upstream.fields->at(field).as<Bf16>()};
  }
  if (upstream.held == nullptr) return {};
  const auto held = std::ranges::find(*upstream.held, field, &HeldField::field);
  if (held == upstream.held->end() || held->rows.dtype() != DType::BFloat16) return {};
  for (const HeldRows& stored : held->stored)
    for (std::int64_t r = 0; r < stored.count; ++r) rows.push_back(stored.first + r);
  return {std::move(rows), held->rows.as<Bf16>()};
}

std::optional<Accumulator> find_split(ProductId product, const Layer& layer, const Values<Predicted>* left,
                                      std::span<const Bf16> target, std::span<const std::int64_t> rows,
                                      const Values<Predicted>& plain) {
  const auto width = static_cast<std::size_t>(width_of(row(product).made, layer.problem->sizes()));
  const auto bits_of = [&](std::int64_t r) {
    return target.subspan(static_cast<std::size_t>(r) * width, width);
  };
  std::vector<std::pair<std::int64_t, std::int64_t>> worst;  // differing elements, place in `rows`
  for (std::size_t r = 0; r * width < target.size(); ++r) {
    const auto differing =
        count_differing(std::span(plain).subspan(static_cast<std::size_t>(rows[r]) * width, width),
                        target.subspan(r * width, width));
    if (differing > 0) worst.emplace_back(-differing, static_cast<std::int64_t>(r));
  }
  if (worst.empty()) return std::nullopt;
  std::ranges::sort(worst);
  std::vector<std::int64_t> sample;
  for (std::size_t i = 0; i < std::min(kSampledRows, worst.size()); ++i) sample.push_back(worst[i].second);
  std::ranges::sort(sample);
  std::vector<Bf16> sample_bits;
  for (auto& r : sample) {
    std::ranges::copy(bits_of(r), std::back_inserter(sample_bits));
    r = rows[static_cast<std::size_t>(r)];
  }
  for (const auto& split : candidate_splits(extent(row(product).summed, layer.problem->sizes()))) {
    const Accumulator tried{AccumulatorKind::Hopper, split};
    if (count_differing(predict_rows(product, layer, left, tried, sample), sample_bits) == 0 &&
        count_differing(predict_rows(product, layer, left, tried, rows), target) == 0)
      return tried;
  }
  return std::nullopt;
}

Accumulator measured_split(ProductId product, const MoeConfig& config, std::int64_t rows,
                           bool per_expert_cublas) {
  struct MeasuredSplit {
    ProductId product;
    std::int64_t k;
    std::int64_t n;
    std::int64_t most_rows;
    bool per_expert;
    std::vector<std::int64_t> split;
  };
  static const MeasuredSplit table[] = {
      {ProductId::router, 4096, 128, 256, false, {1408, 1408, 1280}},
      {ProductId::gate_up, 4096, 3072, 32, true, {2048, 2048}},
      // Of 24 tokens: the ones under which the golden's d_intermediate and d_permuted_hidden_states have
      // their hashes.
      {ProductId::down_dx, 4096, 1536, 24, true, {1408, 1408, 1280}},
      {ProductId::gate_up_dx, 3072, 4096, 24, true, {1536, 1536}},
  };
  const Sizes sizes{config, rows};
  const std::int64_t k = extent(row(product).summed, sizes);
  const std::int64_t n = width_of(row(product).made, sizes);
  for (const auto& measured : table)
    if (measured.product == product && measured.k == k && measured.n == n && rows <= measured.most_rows &&
        (!measured.per_expert || per_expert_cublas))
      return {AccumulatorKind::Hopper, measured.split};
  return {AccumulatorKind::Hopper, {}};
}

}  // namespace assay
