#include "harness/judge/broken_upstream.h"

#include <algorithm>

#include <fmt/format.h>

#include "harness/contract/layer.h"

namespace assay {

std::optional<Field> broken_upstream(Field field, std::span<const FieldResult> judged,
                                     const PrecisionContract& contract) {
  for (const auto& read : find_step(field, contract)->reads) {
    if (!read || given(*read)) continue;
    const auto result = std::ranges::find(judged, *read, &FieldResult::field);
    if (result == judged.end()) continue;
    // What cannot be read is recomputed, but for routing.
    const bool recomputed =
        !compared(result->verdict) ||
        ((result->verdict == Verdict::WrongShape || result->verdict == Verdict::WrongDtype) &&
         row(*read).dtype != DType::Int32);
    if (!recomputed && failed(result->verdict)) return *read;
    if (!recomputed) continue;
    if (const auto further = broken_upstream(*read, judged, contract)) return further;
  }
  return std::nullopt;
}

void judge_by_the_chain(FieldResult& result, Field broken) {
  result.isolated.verdict = Verdict::NotJudged;
  result.isolated_bits.binding = false;
  result.notes.push_back(
      fmt::format("not judged by itself: {}, which it is computed from, is broken", name(broken)));
}

}  // namespace assay
