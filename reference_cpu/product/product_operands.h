// The left operand of a grouped product as the kernels read it; the right one: packed_panel.h.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "harness/contract/grouped_product.h"
#include "harness/contract/large_vector.h"
#include "harness/contract/product_intervals.h"
#include "harness/contract/worth_threads.h"
#include "reference_cpu/product/packed_panel.h"

namespace assay {

// The left operand, prepared once for all columns.
struct BoundedRows {
  using Value = Interval;
  LargeVector<double> ref;  // [rows, k]
  // [rows, k]
  LargeVector<float> spread;
  LargeVector<float> squares;
  // [rows, k] (IntervalRow), where the right operand may have errors
  LargeVector<float> magnitude;
  LargeVector<float> moment;
  std::vector<double>
      granularity;  // [rows]: largest power of two that divides the row; 0 where it is not exact
  std::vector<std::uint8_t> exact;  // [rows]: no operand has a width, so that the running bound holds
  BoundShape shape;
  ElementConstants constants;
  Summation order;

  explicit BoundedRows(const GroupedProduct<Interval>& p) {
    const auto rows = p.k == 0 ? 0 : static_cast<std::int64_t>(p.left.size()) / p.k;
    granularity.resize(static_cast<std::size_t>(rows));
    exact.resize(granularity.size());
    std::int64_t exact_rows = 0;
#pragma omp parallel for schedule(static) reduction(+ : exact_rows) if (worth_threads(4 * rows * p.k))
    for (std::int64_t r = 0; r < rows; ++r) {
      double least = std::numeric_limits<double>::infinity();
      bool exact_row = true;
      for (std::int64_t k = 0; exact_row && k < p.k; ++k) {
        const Interval& x = p.left[static_cast<std::size_t>(r * p.k + k)];
        exact_row = x.low == x.ref && x.high == x.ref;
        if (!p.a_priori_only) least = std::min(least, assay::granularity(x.ref));
      }
      granularity[static_cast<std::size_t>(r)] = exact_row && !p.a_priori_only ? least : 0.0;
      exact[static_cast<std::size_t>(r)] = exact_row;
      exact_rows += exact_row;
    }
    shape = bound_shape(p.k, p.unit_roundoff, p.accumulator, exact_rows > 0 && !p.a_priori_only);
    constants = ElementConstants(shape);
    order = shape.running ? summation(p.accumulator, p.k) : Summation{StepRule::Truncate16, {{0, p.k, true}}};
    ref.resize(static_cast<std::size_t>(rows * p.k));
    spread.resize(ref.size());
    squares.resize(ref.size());
#pragma omp parallel for schedule(static) if (worth_threads(rows * p.k))
    for (std::int64_t i = 0; i < rows * p.k; ++i) {
      const auto at = static_cast<std::size_t>(i);
      ref[at] = p.left[at].ref;
      spread[at] = spread_of(shape, p.left[at]);
      squares[at] = squares_of(shape, p.left[at]);
    }
    if (p.weights) return;
    magnitude.resize(ref.size());
    moment.resize(ref.size());
#pragma omp parallel for schedule(static) if (worth_threads(rows * p.k))
    for (std::int64_t i = 0; i < rows * p.k; ++i) {
      const auto at = static_cast<std::size_t>(i);
      magnitude[at] = not_below(std::fabs(p.left[at].ref));
      moment[at] = moment_of(p.left[at]);
    }
  }
  Walk walk() const {
    return {order.stretches.data(), static_cast<std::int64_t>(order.stretches.size()), order.rule,
            shape.running, static_cast<float>(1.0 / shape.c)};
  }
  IntervalRow interval_row(std::int64_t row, std::int64_t k) const {
    return {this->row(row, k), magnitude.data() + row * k, moment.data() + row * k};
  }
  BoundedRow row(std::int64_t row, std::int64_t k) const {
    return {ref.data() + row * k, spread.data() + row * k, squares.data() + row * k};
  }
};

struct PredictedRows {
  using Value = PredictedValue;
  std::int64_t stride = 0;
  LargeVector<float> values;               // [rows, stride], zero-padded
  LargeVector<std::int16_t> exponents;     // [rows, stride]
  std::vector<std::uint8_t> outside;       // [rows]: what the tensor core was not measured on
  std::vector<std::uint8_t> undetermined;  // [rows]
  Summation order;                         // of all k terms

  explicit PredictedRows(const GroupedProduct<PredictedValue>& p)
      : stride(padded(p.k)), order(summation(p.accumulator, p.k)) {
    const auto rows = p.k == 0 ? 0 : static_cast<std::int64_t>(p.left.size()) / p.k;
    values.resize(static_cast<std::size_t>(rows * stride));
    exponents.resize(values.size());
    outside.resize(static_cast<std::size_t>(rows));
    undetermined.resize(outside.size());
#pragma omp parallel for schedule(static) if (worth_threads(4 * rows * p.k))
    for (std::int64_t r = 0; r < rows; ++r) {
      bool out = false;
      bool open = false;
      for (std::int64_t k = 0; k < p.k; ++k) {
        const auto& x = p.left[static_cast<std::size_t>(r * p.k + k)];
        const auto at = static_cast<std::size_t>(r * stride + k);
        values[at] = x.value;
        exponents[at] = exponent(x.value);
        out = out || outside_measured(x.value);
        open = open || x.undetermined;
      }
      for (std::int64_t k = p.k; k < stride; ++k) {
        values[static_cast<std::size_t>(r * stride + k)] = 0.0f;
        exponents[static_cast<std::size_t>(r * stride + k)] = kZeroExponent;
      }
      outside[static_cast<std::size_t>(r)] = out;
      undetermined[static_cast<std::size_t>(r)] = open;
    }
  }
};

}  // namespace assay
