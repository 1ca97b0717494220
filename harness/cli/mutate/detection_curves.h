// From which size on a scalable fault is found: by assay and by each rule of thumb, over many seeds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace assay::cli {

/// How often one rule found a fault of each size.
struct RuleCurve {
  std::string rule;
  std::vector<std::int64_t> found;  // by size, of `seeds`
};

struct DetectionCurve {
  std::string family;
  std::string sentence;
  std::string size;
  std::vector<double> sizes;
  std::int64_t seeds = 0;
  std::vector<RuleCurve> rules;  // "any bit changes" first: what can be found at all
};

/// The smallest size from which on, in every larger one too, at least `share` of the seeds are found; nothing
/// if the largest is not.
std::optional<double> detected_from(const DetectionCurve& curve, const RuleCurve& rule, double share);

/// Plants every size of the families (all when empty) on problems with `seeds` fresh seeds.
std::vector<DetectionCurve> detection_curves(const std::vector<std::string>& families, std::int64_t seeds,
                                             std::uint64_t first_seed);

std::string text(const std::vector<DetectionCurve>& curves);
std::string json(const std::vector<DetectionCurve>& curves, const std::string& command);
/// Reads what `json` writes. Throws InputError naming what is missing.
std::vector<DetectionCurve> read_detection_curves(const std::string& text);

}  // namespace assay::cli
