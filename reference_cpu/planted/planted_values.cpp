#include "reference_cpu/planted/planted.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace assay {
namespace {

/// A fixed hash of an index (the finaliser of SplitMix64), as a number in [0, 1).
double scattered(std::int64_t index) {
  auto x = static_cast<std::uint64_t>(index) + 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return static_cast<double>((x ^ (x >> 31)) >> 11) * 0x1p-53;
}

std::int64_t group_of(const PlantedRegion& region, std::int64_t row) {
  return std::upper_bound(region.offsets.begin(), region.offsets.end(), row) - region.offsets.begin() - 1;
}

float planted_value(const Fault& fault, float x) {
  const auto limit = static_cast<float>(fault.scale);
  switch (fault.kind) {
    case FaultKind::ScaleValues:
      return fault.scale == -1.0 ? 0.0f : static_cast<float>(x * (1.0 + fault.scale));
    case FaultKind::Poison: return std::numeric_limits<float>::quiet_NaN();
    case FaultKind::NanToZero: return std::isnan(x) ? 0.0f : x;
    case FaultKind::Saturate: return std::isnan(x) ? limit : std::clamp(x, -limit, limit);
    case FaultKind::FlushTiny: return std::fabs(x) < limit ? 0.0f : x;
    case FaultKind::PositiveZero: return x == 0.0f ? 0.0f : x;
    default: return x;
  }
}

}  // namespace

float keep_bits(float x, int bits) {
  if (!std::isfinite(x) || x == 0.0f) return x;
  const int exponent = std::ilogb(x) - (bits - 1);
  return std::ldexp(std::nearbyint(std::ldexp(x, -exponent)), exponent);
}

bool touches(const Fault& fault, const PlantedRegion& region, std::int64_t row, std::int64_t column) {
  switch (fault.where) {
    case Where::Everywhere: return true;
    case Where::Expert: return group_of(region, row) == fault.expert;
    case Where::OtherExperts: return group_of(region, row) != fault.expert;
    case Where::FirstRow:
      return row > 0 && region.offsets[static_cast<std::size_t>(group_of(region, row))] == row;
    case Where::LaterRows: return region.offsets[static_cast<std::size_t>(group_of(region, row))] != row;
    case Where::EmptyExperts:
      return !region.counts.empty() && region.counts[static_cast<std::size_t>(group_of(region, row))] == 0;
    case Where::LastRow:
      return region.offsets[static_cast<std::size_t>(group_of(region, row)) + 1] == row + 1;
    case Where::MiddleRow: return row == region.rows / 2;
    case Where::MiddleElement: return row == region.rows / 2 && column == region.columns / 2;
    case Where::LastColumns: return column >= region.columns - (region.columns / 8 + 7) / 8 * 8;
    case Where::OddColumns: return column % 2 == 1;
    case Where::Share: return scattered(row * region.columns + column) < fault.share;
  }
  return false;
}

void plant_values(const Fault& fault, const PlantedRegion& region, const Tensor& input,
                  LargeVector<PredictedValue>& values) {
  const auto at = [&](std::int64_t row, std::int64_t column) {
    return static_cast<std::size_t>(row * region.columns + column);
  };
  const bool moves = fault.kind == FaultKind::NextRow || fault.kind == FaultKind::ShiftColumns;
  const auto before = moves ? values : LargeVector<PredictedValue>{};
  for (std::int64_t row = 0; row < region.rows; ++row)
    for (std::int64_t column = 0; column < region.columns; ++column) {
      if (!touches(fault, region, row, column)) continue;
      auto& value = values[at(row, column)].value;
      if (fault.kind == FaultKind::NextRow)
        value = before[at((row + 1) % region.rows, column)].value;
      else if (fault.kind == FaultKind::ShiftColumns)
        value = before[at(row, (column + fault.amount) % region.columns)].value;
      else if (fault.kind == FaultKind::AddInput)
        value += to_float(input.as<Bf16>()[at(row, column)]);
      else
        value = planted_value(fault, value);
    }
}

bool rounds_wrongly(FaultKind kind) {
  return kind == FaultKind::TruncateBf16 || kind == FaultKind::RoundHalfAway ||
         kind == FaultKind::RoundTwice || kind == FaultKind::RoundStochastic;
}

float round_wrongly(FaultKind kind, float value, std::int64_t index) {
  if (!std::isfinite(value)) return to_float(round_to_bf16(value));
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto upper = [](std::uint32_t all) { return std::bit_cast<float>(all & 0xffff0000u); };
  switch (kind) {
    case FaultKind::TruncateBf16: return upper(bits);
    case FaultKind::RoundHalfAway: return upper(bits + 0x8000u);
    case FaultKind::RoundTwice: return to_float(round_to_bf16(keep_bits(value, 11)));
    case FaultKind::RoundStochastic:
      return upper(bits + static_cast<std::uint32_t>(scattered(index) * 0x1p16));
    default: return value;
  }
}

bool changes_silu(FaultKind kind) {
  switch (kind) {
    case FaultKind::Relu:
    case FaultKind::Gelu:
    case FaultKind::QuickGelu:
    case FaultKind::TanhApprox:
    case FaultKind::SiluFlushed:
    case FaultKind::SiluOverflows:
    case FaultKind::SiluScaled: return true;
    default: return false;
  }
}

float planted_silu(const Fault& fault, float gate, float silu) {
  switch (fault.kind) {
    case FaultKind::Relu: return std::max(gate, 0.0f);
    case FaultKind::Gelu: return 0.5f * gate * (1.0f + std::erf(gate * 0.70710678f));
    case FaultKind::QuickGelu: {
      const float a = fault.amount > 0 ? std::min(gate, static_cast<float>(fault.amount)) : gate;
      return a / (1.0f + std::exp(-1.702f * a));
    }
    // tanh.approx.f32 has a relative error of up to 2^-10.987 (PTX ISA, tanh).
    case FaultKind::TanhApprox: return gate * (0.5f + 0.5f * keep_bits(std::tanh(0.5f * gate), 11));
    case FaultKind::SiluFlushed: return gate < -static_cast<float>(fault.scale) ? 0.0f : silu;
    case FaultKind::SiluOverflows: return gate * (std::exp(gate) / (1.0f + std::exp(gate)));
    case FaultKind::SiluScaled: return static_cast<float>(silu * (1.0 + fault.scale));
    default: return silu;
  }
}

}  // namespace assay
