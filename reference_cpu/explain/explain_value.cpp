// The candidate's element and what it is worth: accepted, as predicted, how far off.
#include "reference_cpu/explain/explain.h"

#include <cmath>

#include <fmt/format.h>

namespace assay {
namespace {

std::string_view short_name(DType dtype) { return dtype == DType::BFloat16 ? "bf16" : row(dtype).name; }

}  // namespace

std::optional<Stored> found_element(const Candidate& candidate, bool usable, const Place& place,
                                    Derivation& derivation) {
  const Field field = derivation.field;
  if (usable)
    return StoredSpan(candidate.fields.at(field), derivation.dtype)[static_cast<std::size_t>(place.index)];
  const HeldField* held = candidate.held_field(field);
  derivation.sentence = held == nullptr
                            ? "the candidate has no such field, or one of wrong shape or dtype"
                            : "the candidate's field is held by its hashes, and this row is not stored";
  if (held == nullptr || held->dtype != DType::BFloat16) return std::nullopt;
  const std::int64_t width = held->shape.back();
  std::int64_t before = 0;
  for (const HeldRows& range : held->stored) {
    const std::int64_t row = place.index / width - range.first;
    if (0 <= row && row < range.count)
      return held->rows.as<Bf16>()[static_cast<std::size_t>((before + row) * width + place.index % width)];
    before += range.count;
  }
  return std::nullopt;
}

void judge_found(Stored out, bool promised, Derivation& d) {
  d.out = out.value;
  d.out_bits = out.bits();
  d.ulps = std::abs(out.ordinal() - stored_as(d.dtype, d.value.ref).ordinal());
  d.ratio = *d.out == d.value.ref
                ? 0.0
                : std::fabs(*d.out - d.value.ref) / (radius(d.value) + 0.5 * ulp_at(d.dtype, *d.out));
  const bool nan = std::isnan(d.value.ref);
  const bool accepted = std::isnan(out.value) || nan ? std::isnan(out.value) && nan
                                                     : (d.low <= *d.out && *d.out <= d.high) ||
                                                           (std::isinf(d.value.ref) && *d.out == d.value.ref);
  const bool as_predicted = !d.predicted || d.predicted->undetermined || d.predicted->bits == out.bits();
  if (!accepted) {
    d.verdict = out.finite() ? Verdict::Failed : Verdict::NonFinite;
    d.sentence = out.finite()
                     ? fmt::format(
                           "rejected: {:.9g} lies outside {:.9g} .. {:.9g}, {} {} value{} "
                           "from the rounded reference",
                           *d.out, d.low, d.high, d.ulps, short_name(d.dtype), d.ulps == 1 ? "" : "s")
                     : fmt::format("rejected: {} where {:.9g} .. {:.9g} is accepted", *d.out, d.low, d.high);
  } else if (!as_predicted) {
    d.verdict = promised ? Verdict::Suspect : Verdict::Passed;
    d.sentence =
        fmt::format("{}: inside the accepted interval, yet not the bits the accumulator {} gives",
                    promised ? "suspect" : "accepted", d.accumulator.empty() ? "chain" : d.accumulator);
  } else {
    d.verdict = Verdict::Passed;
    d.sentence =
        d.predicted && !d.predicted->undetermined ? "accepted, and the very bits predicted" : "accepted";
  }
}

}  // namespace assay
