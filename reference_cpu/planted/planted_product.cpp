#include "reference_cpu/planted/planted.h"

#include <algorithm>
#include <cmath>

namespace assay {
namespace {

using PredictedProduct = GroupedProduct<PredictedValue>;
using Rows = LargeVector<PredictedValue>;

std::int64_t left_rows(const PredictedProduct& p) {
  return p.k == 0 ? 0 : static_cast<std::int64_t>(p.left.size()) / p.k;
}

/// fp16: 11 significant bits, and beyond 65504 infinite.
float to_fp16(float x) {
  const float rounded = std::fabs(x) < 0x1p-14f ? std::nearbyint(x * 0x1p24f) * 0x1p-24f : keep_bits(x, 11);
  return std::fabs(rounded) > 65504.0f ? std::copysign(std::numeric_limits<float>::infinity(), x) : rounded;
}

/// The left operand with each element changed: change(row, k).
template <class Change>
Rows changed_left(const PredictedProduct& p, Change change) {
  Rows left(p.left.begin(), p.left.end());
  for (std::int64_t row = 0; row < left_rows(p); ++row)
    for (std::int64_t k = 0; k < p.k; ++k) {
      auto& x = left[static_cast<std::size_t>(row * p.k + k)];
      x.value = change(row, k, x.value);
    }
  return left;
}

Rows with_left(PredictedProduct p, const Rows& left) {
  p.left = left;
  return grouped_product(p);
}

/// Weights changed after loading: element(matrix, column, k) of [n, k].
template <class Element>
std::function<ExpertMatrix(std::int64_t)> changed_weights(const PredictedProduct& p, std::int64_t k,
                                                          Element element) {
  return [&p, k, element](std::int64_t group) {
    const ExpertMatrix from = p.weights(group);
    auto values = std::make_shared<std::vector<Bf16>>(static_cast<std::size_t>(p.n * k));
    for (std::int64_t c = 0; c < p.n; ++c)
      for (std::int64_t i = 0; i < k; ++i)
        (*values)[static_cast<std::size_t>(c * k + i)] = element(from.values, c, i);
    return ExpertMatrix{*values, values};
  };
}

Rows read_beyond(const PredictedProduct& p) {
  const std::int64_t k = p.k + p.fault.amount;
  PredictedProduct longer = p;
  longer.fault = {};
  Rows left(static_cast<std::size_t>(left_rows(p) * k), PredictedValue{});
  // What lies behind a row in memory is the next one; behind the last one, zeros.
  for (std::int64_t row = 0; row < left_rows(p); ++row)
    for (std::int64_t i = 0; i < k; ++i)
      if (static_cast<std::size_t>(row * p.k + i) < p.left.size())
        left[static_cast<std::size_t>(row * k + i)] = p.left[static_cast<std::size_t>(row * p.k + i)];
  longer.k = k;
  longer.weights = changed_weights(p, k, [&](std::span<const Bf16> w, std::int64_t c, std::int64_t i) {
    const auto at = static_cast<std::size_t>(c * p.k + i);
    return at < w.size() ? w[at] : Bf16{};
  });
  return with_left(longer, left);
}

Rows partials_in_bf16(const PredictedProduct& p) {
  Rows sum;
  for (std::int64_t begin = 0; begin < p.k; begin += p.fault.amount) {
    const auto part = with_left(p, changed_left(p, [&](auto, std::int64_t k, float x) {
                                  return k >= begin && k < begin + p.fault.amount ? x : 0.0f;
                                }));
    if (sum.empty()) sum.resize(part.size(), PredictedValue{});
    for (std::size_t i = 0; i < part.size(); ++i) sum[i].value += to_float(round_to_bf16(part[i].value));
  }
  return sum;
}

Rows accumulated_in_fp16(const PredictedProduct& p) {
  Rows out(p.source.size() * static_cast<std::size_t>(p.n), PredictedValue{});
  for (std::size_t g = 0; g + 1 < p.offsets.size(); ++g) {
    if (p.offsets[g] == p.offsets[g + 1]) continue;
    const ExpertMatrix weights = p.weights(static_cast<std::int64_t>(g));
    for (std::int64_t row = p.offsets[g]; row < p.offsets[g + 1]; ++row)
      for (std::int64_t c = 0; c < p.n; ++c) {
        float sum = 0.0f;
        const auto* left = p.left.data() + p.source[static_cast<std::size_t>(row)] * p.k;
        for (std::int64_t k = 0; k < p.k; ++k)
          sum =
              to_fp16(sum + left[k].value * to_float(weights.values[static_cast<std::size_t>(c * p.k + k)]));
        out[static_cast<std::size_t>(row * p.n + c)].value = sum;
      }
  }
  return out;
}

/// Every element under the fault.
Rows faulty(PredictedProduct p) {
  const Fault fault = p.fault;
  const auto in_block = [&](std::int64_t k) { return k >= fault.first && k < fault.first + fault.amount; };
  switch (fault.kind) {
    case FaultKind::ScaleKBlock:
      p.fault = {};
      return with_left(p, changed_left(p, [&](auto, std::int64_t k, float x) {
                         if (!in_block(k)) return x;
                         return fault.scale == -1.0 ? 0.0f : static_cast<float>(x * (1.0 + fault.scale));
                       }));
    case FaultKind::StaleKBlock:
      p.fault = {};
      return with_left(
          p, changed_left(p, [&](std::int64_t row, std::int64_t k, float x) {
            return in_block(k) ? p.left[static_cast<std::size_t>(row * p.k + k - fault.amount)].value : x;
          }));
    case FaultKind::NarrowOperands:
      p.fault = {};
      return with_left(p, changed_left(p, [&](auto, auto, float x) {
                         return keep_bits(x, static_cast<int>(fault.amount));
                       }));
    case FaultKind::ReadBeyondK: return read_beyond(p);
    case FaultKind::PartialsBf16: return partials_in_bf16(p);
    case FaultKind::AccumulateFp16: return accumulated_in_fp16(p);
    case FaultKind::PreviousExpert: {
      PredictedProduct other = p;
      const auto groups = static_cast<std::int64_t>(p.offsets.size()) - 1;
      other.fault = {};
      other.weights = [&p, groups](std::int64_t group) { return p.weights((group + groups - 1) % groups); };
      return grouped_product(other);
    }
    case FaultKind::TransposedWeights: {
      PredictedProduct other = p;
      other.fault = {};
      if (p.right_lies == Lies::AlongRows) {  // as the forward product reads them
        other.right_lies = Lies::AlongColumns;
        return grouped_product(other);
      }
      other.weights = changed_weights(p, p.k, [&p](std::span<const Bf16> w, std::int64_t c, std::int64_t k) {
        return w[static_cast<std::size_t>(k * p.n + c)];
      });
      return grouped_product(other);
    }
    default: return grouped_product(p);
  }
}

}  // namespace

LargeVector<PredictedValue> planted_product(const GroupedProduct<PredictedValue>& product) {
  const Fault& fault = product.fault;
  if (fault.kind == FaultKind::None || fault.where == Where::Everywhere) return faulty(product);
  PredictedProduct right = product;
  right.fault = {};
  auto out = grouped_product(right);
  const auto wrong = faulty(product);
  const PlantedRegion region{
      static_cast<std::int64_t>(product.source.size()), product.n, product.offsets, {}};
  for (std::int64_t row = 0; row < region.rows; ++row)
    for (std::int64_t c = 0; c < region.columns; ++c) {
      const auto at = static_cast<std::size_t>(row * product.n + c);
      if (touches(fault, region, row, c)) out[at] = wrong[at];
    }
  return out;
}

}  // namespace assay
