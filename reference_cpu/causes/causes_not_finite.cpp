// NaN and Inf that got lost on the way, or into rows that have none.
#include <algorithm>

#include <fmt/format.h>

#include "reference_cpu/causes/causes.h"

namespace assay {
namespace {

struct NotFinite {
  std::vector<std::int64_t> rows;
  std::int64_t elements = 0;
};

/// Wrong elements that `is` holds of, and the rows that they lie in.
template <class Is>
NotFinite wrong_that(const Evidence& evidence, Is is) {
  NotFinite found;
  for (std::int64_t r = 0; r < evidence.rows; ++r) {
    std::int64_t here = 0;
    for (std::int64_t c = 0; c < evidence.width; ++c) {
      const auto at = index(evidence, r, c);
      here += evidence.out[at] != evidence.reference[at] && is(evidence.out[at], evidence.reference[at]);
    }
    if (here > 0) found.rows.push_back(r);
    found.elements += here;
  }
  return found;
}

template <class Is>
Proposal seen(const Evidence& evidence, std::string_view id, std::string sentence, Is is) {
  return {id, std::move(sentence), by_element([&evidence, is](std::int64_t r, std::int64_t c) {
            const auto at = index(evidence, r, c);
            return is(evidence.out[at], evidence.reference[at]) ? evidence.out[at] : evidence.reference[at];
          }),
          true};
}

}  // namespace

std::vector<Proposal> propose_not_finite(const Evidence& evidence, const ErrorPlace&) {
  std::vector<Proposal> all;
  const auto nan_lost = [](Stored out, Stored due) { return is_nan(due) && !is_nan(out); };
  const auto inf_lost = [](Stored out, Stored due) {
    return !is_nan(due) && !is_finite(due) && is_finite(out);
  };
  const auto came = [](Stored out, Stored due) { return is_finite(due) && !is_finite(out); };
  if (const auto lost = wrong_that(evidence, nan_lost); lost.elements > 0)
    all.push_back(
        seen(evidence, "nan_swallowed", "NaN swallowed in " + rows_listed(evidence, lost.rows), nan_lost));
  if (const auto lost = wrong_that(evidence, inf_lost); lost.elements > 0)
    all.push_back(seen(evidence, "nan_swallowed", "infinity swallowed in " + rows_listed(evidence, lost.rows),
                       inf_lost));
  // Values that were never written are NaN, too: what spreads has a source in the field's own rows.
  std::vector<std::int64_t> sources;
  for (std::int64_t r = 0; r < evidence.rows; ++r)
    for (std::int64_t c = 0; c < evidence.width; ++c)
      if (!is_finite(evidence.reference[index(evidence, r, c)]) && (sources.empty() || sources.back() != r))
        sources.push_back(r);
  if (sources.empty()) return all;
  if (const auto spread = wrong_that(evidence, came); spread.elements > 0)
    all.push_back(seen(evidence, "nan_spread",
                       fmt::format("NaN or infinity spreads from {} to {}", rows_listed(evidence, sources),
                                   rows_listed(evidence, spread.rows)),
                       came));
  return all;
}

}  // namespace assay
