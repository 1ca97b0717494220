// What the reference says of an element.
#pragma once

#include "harness/contract/on_both.h"

namespace assay {

/// A value before its last rounding: float64, the interval that accumulation and elementary functions allow,
/// and how far off legal implementations typically are, which statistics are judged by. The interval decides.
struct Interval {
  double ref = 0.0;
  double low = 0.0;
  double high = 0.0;
  float noise = 0.0f;  // modelled root mean square error
  float mean = 0.0f;   // modelled mean |error|, at most `noise`; far below it where few implementations
                       // differ, but those by much

  Interval() = default;
  ASSAY_ON_BOTH Interval(double value, double least, double most, double rms = 0.0)
      : Interval(value, least, most, rms, rms) {}
  ASSAY_ON_BOTH Interval(double value, double least, double most, double rms, double mean_size)
      : ref(value),
        low(least),
        high(most),
        noise(static_cast<float>(rms)),
        mean(static_cast<float>(mean_size)) {}
};

}  // namespace assay
