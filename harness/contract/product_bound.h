// The interval of one element of a matrix product, from sums over its terms. Formulas and proofs:
// harness/NUMERICS.md, Products.
#pragma once

#include <cmath>
#include <cstdint>

#include "harness/contract/accumulator.h"
#include "harness/contract/bf16.h"
#include "harness/contract/interval.h"
#include "harness/contract/summation.h"

namespace assay {

/// gamma_n = n u / (1 - n u): Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1.
double gamma(std::int64_t n, double unit_roundoff = kFp32UnitRoundoff);

/// C(n) = gamma_n, safe for any order of summation: n - 1 additions rounded to nearest in any order
/// (Higham 3.1), splits included; and a Hopper tensor core, whose ceil(n / 16) steps of 5 * 2^-23 each come
/// to 0.625 n u. A tensor core that aligns 8 products comes to 1.25 n u: `unit_roundoff` is then twice as
/// large. A float64 accumulator is compared with our own float64 sum: twice.
double product_bound_constant(std::int64_t n, double unit_roundoff = kFp32UnitRoundoff);

/// Sums over the n terms of one element: a is the left operand and b the right one, with values, half widths
/// da and db, and noises.
struct ProductSums {
  double ref = 0.0;      // sum a b in float64
  float spread = 0.0f;   // sum of `spread_of(a)` (|b| + db) + |a| db
  float squares = 0.0f;  // sum of `squares_of(a)` b^2 + `moment_of(a)` `noise_units(b)`
  float running = 0.0f;  // sum of what each step may lose, in units of 2^-23 (running_bound); infinite where
                         // a or b has a width
};

/// What all elements of a product share.
struct BoundShape {
  std::int64_t n = 0;  // terms
  double unit_roundoff = kFp32UnitRoundoff;
  double c = 0.0;        // product_bound_constant
  double rate = 0.0;     // accumulation_rate
  bool running = false;  // the sums hold the running bound
  double running_inflation = 1.0;
};

/// The running bound is taken where the order is declared, some row of the left operand exact and the
/// accumulator fp32.
BoundShape bound_shape(std::int64_t n, double unit_roundoff, const Accumulator& accumulator,
                       bool any_exact_row);

/// |sum (a + da) b - computed| <= sum |da||b| + C(n) sum (|a| + |da|)|b|. Narrowing to fp32 is included.
float spread_of(const BoundShape& shape, const Interval& a);

/// a^2, and the operand's noise in units of what q^2 counts for (noise.h).
float squares_of(const BoundShape& shape, const Interval& a);

/// For a right operand with errors: what its width adds to the spread is |a| db, what its noise adds to the
/// variance (a^2 + noise_a^2) noise_b^2.
float noise_units(const BoundShape& shape, const Interval& b);  // noise_b^2 in units of what q^2 counts for
float moment_of(const Interval& a);                             // a^2 + noise_a^2

/// Whether the value is one number that a float holds. Columns of such values have no errors to carry.
inline bool is_exact_float(const Interval& x) {
  return x.low == x.ref && x.high == x.ref && !(x.noise > 0.0f) &&
         (static_cast<double>(static_cast<float>(x.ref)) == x.ref || std::isnan(x.ref));
}

/// Narrowed to fp32, and not below x: for factors of bounds.
inline float not_below(double x) { return static_cast<float>(x * (1.0 + 0x1p-22)); }

/// C(n) sum |a||b| + the carried width: holds for every order.
double a_priori_bound(const BoundShape& shape, const ProductSums& sums);

/// Valid for the declared order only: sum over its steps of what each may lose, given the exact prefix sums
/// (NUMERICS 3). Truncate16 and Truncate8: 2^-23 |s_k| for cutting the result, and for cutting 16 addends
/// at 2^-25 (8 at 2^-24) of the largest 2^-21 max(|s_{k-1}|, max |p_i|); one addend, the largest, is never
/// cut. RoundEach, RoundTree: u |s_k|. Partial sums: u |total|. The computed prefix differs from the exact
/// one by at most the bound B itself, so with w the sum of all steps' weights B <= B_exact + w B, hence B <=
/// B_exact / (1 - w): that is `running_inflation`. Our own prefixes are float64: gamma_n(2^-53) S.
double running_bound(const BoundShape& shape, const ProductSums& sums);

/// Whether the element is exact in every order on every accumulator that keeps 24 bits: all terms are
/// multiples of q = left_granularity * right_granularity and sum |a||b| < 2^24 q (NUMERICS 6).
/// Granularities are powers of two, 0 where the operand is not exact, infinite where it is all zeros.
bool exact_in_any_order(const BoundShape& shape, const ProductSums& sums, double left_granularity,
                        double right_granularity);

/// The right operand's granularity must be above this for the element to be exact.
double least_right_granularity(const BoundShape& shape, const ProductSums& sums, double left_granularity);

/// The largest power of two of which x is a multiple; infinite for 0, 0 for Inf and NaN.
double granularity(double x);

/// ref +- the smaller of the bounds, or no width where `exact`; with its noise.
Interval product_interval(const BoundShape& shape, const ProductSums& sums, bool exact);

}  // namespace assay
