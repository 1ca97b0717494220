#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "reports/wording.h"

namespace assay {
namespace {

std::string_view are_wrong(bool one, bool has_interval) {
  if (!has_interval) return one ? "is wrong" : "are wrong";
  return one ? "lies outside its accepted interval" : "lie outside their accepted interval";
}

std::string of_judgement(const FieldResult& field, const Judgement& judgement, std::string_view against) {
  const bool ratio = has_ratio(field.field);
  std::string text =
      fmt::format("{} {}of {} {}", rejected_in_words(judgement), judgement.tokens > 0 ? "" : "elements ",
                  name(field.field), are_wrong(judgement.rejected == 1, ratio));
  if (!judgement.worst) return text + ".";
  const Element& e = *judgement.worst;
  text += fmt::format("; the {}, at {}, is {}", ratio ? "worst" : "first", place_text(e), value_text(e.out));
  if (!ratio || std::isnan(e.ref)) return text + fmt::format(" where {} is right.", value_text(e.ref));
  text += e.low == e.high ? fmt::format(" where only {} is accepted", value_text(e.low))
                          : fmt::format(" where {} to {} is accepted", value_text(e.low), value_text(e.high));
  if (std::isfinite(e.ratio)) text += fmt::format(", off by {} times the bound", ratio_text(e.ratio));
  return text + fmt::format(". The reference is float64, from {}.", against);
}

}  // namespace

std::string distance_text(const CaseResult& result) {
  const auto own = std::ranges::find_if(
      result.fields, [&](const FieldResult& f) { return f.field == result.first_own_error; });
  if (own != result.fields.end() && own->isolated.rejected > 0)
    return of_judgement(*own, own->isolated,
                        own->upstream.empty() ? "the candidate's own upstream fields"
                                              : "the candidate's fields before " + own->upstream);
  const auto inherited =
      std::ranges::find_if(result.fields, [](const FieldResult& f) { return f.chained.rejected > 0; });
  if (own == result.fields.end() && inherited != result.fields.end())
    return of_judgement(*inherited, inherited->chained, "the problem's inputs");
  return "";
}

}  // namespace assay
