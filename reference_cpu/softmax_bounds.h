// Intervals of the softmax's parts, which weights and gradients of logits are made of.
#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "reference_cpu/stages.h"

namespace assay {

/// exp(l - m) of every logit in fp32: relative error e_exp = (E + 1/2) 2^-23 plus |l - m| u of the rounded
/// argument; results and quotients below 2^-126 may be flushed (NUMERICS 5). Noise: that error,
/// uniform, and the logit's times e.
std::vector<Interval> exponentials(std::span<const Interval> logits, const PrecisionContract& contract);

/// value / (value + others): rises with the value, falls with the others, so the ends come from opposite
/// ends. Where the logits' noise leaves an end open, exp has none there: the share's limit is 1.
inline Interval share(const Interval& value, const Interval& others) {
  const double high = std::isinf(value.high) ? 1.0 : value.high / (value.high + others.low);
  return {value.ref / (value.ref + others.ref), value.low / (value.low + others.high), high};
}

/// router_grad.cpp: of one token's gradients of logits [E], how much of their half widths is what an
/// implementation rounds after the weights; the rest is the weights' and the inputs'. 0 where no number is.
std::vector<double> roundings_of_logit_gradients(const Layer& layer, const Values<Bounded>& d_weights,
                                                 const Values<Bounded>& logits, std::int64_t token);

}  // namespace assay
