// The two bounds of one element of a product, from its terms, and what they are made of: what product_bound.h
// gives for whole panels, one element at a time and in float64, for showing.
#pragma once

#include <span>
#include <string>

#include "harness/contract/product_bound.h"

namespace assay {

struct ElementBound {
  double magnitude = 0.0;  // sum |a||b|
  double carried = 0.0;    // sum (width of a) (|b| + width of b) + |a| (width of b)
  double a_priori = 0.0;   // for any order
  bool ordered = false;    // the running bound applies: the order is declared and every a and b is exact
  // The running bound: what each step's rounding or cut may lose, what aligning its addends may lose (tensor
  // cores), and what adding up partial sums may lose; then all of it, inflated.
  double rounding = 0.0;
  double alignment = 0.0;
  double joining = 0.0;
  double running = 0.0;
  Interval interval;  // by the bound in force
};

ElementBound element_bound(const Accumulator& accumulator, double unit_roundoff, std::span<const Interval> a,
                           std::span<const Interval> b);
ElementBound element_bound(const Accumulator& accumulator, double unit_roundoff, std::span<const Interval> a,
                           std::span<const Bf16> b);

/// "C(n) sum |a||b| for additions in any order, ..."
std::string a_priori_words(std::int64_t n, double unit_roundoff);

/// What a step of the declared order loses at most, or why the running bound does not apply.
std::string running_words(const Accumulator& accumulator, std::int64_t n, double unit_roundoff,
                          bool exact_operands);

}  // namespace assay
