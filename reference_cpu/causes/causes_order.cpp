// Hypotheses about how a product is summed: splits, permuted blocks, other accumulators, narrow running sums.
#include <algorithm>
#include <memory>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/contract/worth_threads.h"
#include "reference_cpu/causes/causes_product.h"
#include "reference_cpu/product/split_search.h"

namespace assay {
namespace {

constexpr std::int64_t kBlocks[] = {16, 32, 64, 128};
constexpr std::int64_t kStep =
    16;  // of the tensor core: a block that is no multiple shares a step with its neighbour

/// Blocks of K in the order given, each padded with zeros to whole tensor-core steps.
std::vector<std::int64_t> in_blocks(std::int64_t k, std::int64_t block,
                                    const std::vector<std::int64_t>& order) {
  std::vector<std::int64_t> positions;
  for (const auto b : order) {
    for (std::int64_t i = b * block; i < std::min(k, (b + 1) * block); ++i) positions.push_back(i);
    while (positions.size() % kStep != 0) positions.push_back(-1);
  }
  return positions;
}

Proposal changed(std::string_view id, std::string sentence,
                 const std::shared_ptr<const ProductOperands>& operands, ProductChange change) {
  return {id, std::move(sentence), [operands, change = std::move(change)](const Window& window) {
            return stored_bits(product(*operands, window, change));
          }};
}

/// Partial sums of stretches of K, combined one after the other by `add`, starting from the first.
template <class Add>
Proposal partial_sums(std::string_view id, std::string sentence,
                      const std::shared_ptr<const ProductOperands>& operands, std::int64_t block, Add add) {
  return {id, std::move(sentence), [=](const Window& window) {
            Values<Predicted> sum;
            for (std::int64_t begin = 0; begin < operands->k; begin += block) {
              ProductChange stretch;
              for (std::int64_t i = begin; i < std::min(operands->k, begin + block); ++i)
                stretch.k_order.push_back(i);
              const auto partial = product(*operands, window, stretch);
              if (sum.empty()) sum.resize(partial.size(), PredictedValue{});
              for (std::size_t i = 0; i < sum.size(); ++i)
                sum[i].value = add(sum[i].value, partial[i].value, begin == 0);
            }
            return stored_bits(sum);
          }};
}

float to_bf16(float x) { return to_float(round_to_bf16(x)); }
float to_fp16(float x) { return static_cast<float>(static_cast<_Float16>(x)); }

/// fp32 terms one by one, the running sum narrowed after each: slow and plain.
template <class Narrow>
std::vector<Bf16> sum_narrowed(const ProductOperands& operands, const Window& window, Narrow narrow) {
  std::vector<Bf16> bits(window.size());
#pragma omp parallel for schedule(static) if (worth_threads(window.size() * 16))
  for (std::size_t i = 0; i < window.rows.size(); ++i) {
    const auto left = operands.left_of(window.rows[i]);
    const ExpertMatrix weights = operands.weights(operands.expert[static_cast<std::size_t>(window.rows[i])]);
    for (std::size_t c = 0; c < window.columns.size(); ++c) {
      const auto column =
          weights.values.subspan(static_cast<std::size_t>(window.columns[c] * operands.k), left.size());
      float sum = 0.0f;
      for (std::size_t k = 0; k < left.size(); ++k) sum = narrow(sum + left[k].value * to_float(column[k]));
      bits[i * window.columns.size() + c] = round_to_bf16(sum);
    }
  }
  return bits;
}

}  // namespace

std::vector<Proposal> propose_orders(const Evidence& evidence, const ErrorPlace&) {
  const auto operands = std::make_shared<const ProductOperands>(operands_of(evidence));
  const std::int64_t k = operands->k;
  std::vector<Proposal> all;
  for (const auto& split : candidate_splits(k))
    all.push_back(changed("split_k",
                          fmt::format("K is split into {} parts ({})", split.size(), fmt::join(split, " + ")),
                          operands, {.accumulator = Accumulator{AccumulatorKind::Hopper, split}}));
  all.push_back(changed("k_permuted", "K is summed unsplit, in ascending steps of 16", operands,
                        {.accumulator = Accumulator{AccumulatorKind::Hopper, {}}}));
  for (const auto block : kBlocks) {
    const std::int64_t blocks = (k + block - 1) / block;
    if (blocks < 2) continue;
    std::vector<std::int64_t> descending;
    for (std::int64_t b = blocks; b-- > 0;) descending.push_back(b);
    all.push_back(changed(
        "k_permuted", fmt::format("K is walked in blocks of {} from the last to the first", block), operands,
        {.k_order = in_blocks(k, block, descending),
         .accumulator = Accumulator{AccumulatorKind::Hopper, {}}}));
    for (const std::int64_t parts : {2, 4, 8}) {
      if (parts > blocks) continue;
      std::vector<std::int64_t> dealt;
      std::vector<std::int64_t> lengths;
      for (std::int64_t p = 0; p < parts; ++p) {
        const auto before = in_blocks(k, block, dealt).size();
        for (std::int64_t b = p; b < blocks; b += parts) dealt.push_back(b);
        lengths.push_back(static_cast<std::int64_t>(in_blocks(k, block, dealt).size() - before));
      }
      all.push_back(changed(
          "k_permuted", fmt::format("K is dealt in blocks of {} to {} partial sums", block, parts), operands,
          {.k_order = in_blocks(k, block, dealt),
           .accumulator = Accumulator{AccumulatorKind::Hopper, lengths}}));
    }
  }
  all.push_back(changed("fp32_sequential", "K is summed one by one in fp32, rounded to nearest", operands,
                        {.accumulator = Accumulator{AccumulatorKind::Fp32Sequential, {}}}));
  all.push_back(changed("fp32_pairwise", "K is summed as a tree in fp32, rounded to nearest", operands,
                        {.accumulator = Accumulator{AccumulatorKind::Fp32Pairwise, {}}}));
  all.push_back(changed("bf16_accumulation", "the running sum is rounded to bf16 after every term", operands,
                        {.bf16_every_term = true}));
  all.push_back({"fp16_accumulation", "the running sum is rounded to fp16 after every term",
                 [operands](const Window& window) { return sum_narrowed(*operands, window, to_fp16); }});
  for (std::int64_t block = kStep; block < k; block *= 2) {
    all.push_back(partial_sums(
        "bf16_partial_sums", fmt::format("the running sum is rounded to bf16 after every {} of K", block),
        operands, block, [](float sum, float partial, bool) { return to_bf16(sum + partial); }));
    all.push_back(partial_sums(
        "bf16_partial_sums",
        fmt::format("the sums of every {} of K are rounded to bf16 and then added in fp32", block), operands,
        block, [](float sum, float partial, bool) { return sum + to_bf16(partial); }));
    all.push_back(partial_sums(
        "fp16_accumulation", fmt::format("the running sum is rounded to fp16 after every {} of K", block),
        operands, block, [](float sum, float partial, bool) { return to_fp16(sum + partial); }));
  }
  return all;
}

}  // namespace assay
