// The error of a sample of elements, regressed on the contributions of stretches of K.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <Eigen/Dense>

#include "reference_cpu/causes/causes_product.h"

namespace assay {

/// Elements of the sample with what the fit needs: the error before rounding is known up to the output's
/// rounding.
struct Samples {
  std::vector<std::int64_t> row;
  std::vector<std::int64_t> column;
  std::vector<ExpertMatrix> weights;  // [elements]
  Eigen::VectorXd error;              // out - reference, over the element's scale
  Eigen::VectorXd scale;  // sqrt(sum of squared terms): puts large and small rows and columns on one footing
};

/// One product of the sum behind element i of the sample, in float64.
double term(const ProductOperands& operands, const Samples& s, std::size_t i, std::int64_t k);

/// Elements of the window that can be fitted to: finite ones with a term other than zero. As many as the
/// normal equations of the finest blocks leave work for.
Samples take_samples(const Evidence& evidence, const ProductOperands& operands, const Window& window);

struct KStretch {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  double missing = 0.0;    // fitted share that is missing: 1 dropped, -1 doubled
  double deviation = 0.0;  // of it
};
/// Near enough to 1 (dropped) or -1 (doubled), or to another coefficient, to be taken for it.
bool nearly(double missing, double other);

/// A coefficient counts beyond so many of its standard deviations.
inline constexpr double kDeviations = 6.0;

/// Stretches of K with an error of their own, by blocks and, where few elements of K come into question, by
/// elements: the two readings of the same data. A part of a block that is missing shows in the first as a
/// scaled block.
struct KReadings {
  std::vector<KStretch> blocks;  // all of K as fitted; empty where only elements were
  std::vector<std::vector<KStretch>> readings;
};
KReadings find_stretches(const ProductOperands& operands, const Samples& samples);

bool singular(const std::vector<KStretch>& runs);

/// "the last 32 of K", "K 16 to 31", "element 5 of K".
std::string of_k(const std::vector<KStretch>& runs, std::int64_t k);

}  // namespace assay
