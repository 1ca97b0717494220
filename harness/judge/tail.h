// How improbable a sum is, without knowing its distribution: tail bounds for counts and means of non-negative
// quantities of which only an upper limit of the expectation is known. All chances are natural logarithms of
// upper bounds, so that none underflows.
#pragma once

#include <span>

namespace assay {

/// A bound on the chance that a sum of independent terms, each in [0, largest], reaches `sum` although it is
/// expected to be at most `expected`: exp(-(x ln(x/m) - x + m)) in units of `largest` (Chernoff; a Bernoulli
/// or bounded term has no larger exponential moment than the Poisson of its mean). 0 (certain) up to the
/// expectation, -inf where nothing was expected.
double log_chance_of_sum(double sum, double expected, double largest = 1.0);

/// The sum at which that bound falls to exp(log_share), log_share < 0.
double limit_of_sum(double expected, double log_share, double largest = 1.0);

/// What one independent unit showed, and the most it is expected to show.
struct Unit {
  double observed = 0.0;
  double expected = 0.0;
};

/// The same for units whose terms depend on each other in any way, of which only the expectation of each
/// unit's non-negative total is known. R = observed / expected has a mean of at most 1, so the product of 1 -
/// b + b R over units has one too, for every b in [0, 1]; so has the average over b = 1, 1/2, ..., 1/32, and
/// Markov's inequality makes its inverse a chance (testing by betting: Shafer, Journal of the Royal
/// Statistical Society A 184(2), 2021; Vovk and Wang, Annals of Statistics 49(3), 2021). Units that expect
/// nothing are left out.
double log_chance_of_units(std::span<const Unit> units);

/// How many times its expectation each of `units` units must show for that chance to fall to exp(log_share).
double limit_of_units(std::size_t units, double log_share);

}  // namespace assay
