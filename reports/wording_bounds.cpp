#include <fmt/format.h>

#include "reports/wording.h"

namespace assay {
namespace {

std::string size(double bound, bool in_force) {
  return fmt::format("{:.3g}{}: ", bound, in_force ? ", in force" : "");
}

}  // namespace

std::vector<std::pair<std::string, std::string>> bound_rows(const Judgement& judgement) {
  const BoundsUsed& used = judgement.bounds;
  if (used.a_priori.empty() || !judgement.worst) return {};
  const Element& e = *judgement.worst;
  const bool product = used.sampled > 0 || used.exact > 0;
  const bool exact = product && e.delta == 0.0;
  const bool running = !exact && e.running > 0.0 && e.running < e.a_priori;
  std::vector<std::pair<std::string, std::string>> rows;
  rows.emplace_back("a priori", size(e.a_priori, !exact && !running) + used.a_priori);
  rows.emplace_back("running", (e.running > 0.0 ? size(e.running, running) : "") + used.running);
  std::string typical = exact ? "this element is exact in any order of summation, so that delta is 0" : "";
  if (used.sampled > 0)
    typical +=
        fmt::format("{}the a-priori bound is {} times the one in force: median of {} elements{}",
                    typical.empty() ? "" : "; ", ratio_text(used.typical), grouped_digits(used.sampled),
                    used.exact > 0 ? fmt::format(", {} more are exact", grouped_digits(used.exact)) : "");
  if (!typical.empty()) rows.emplace_back("typically", typical);
  return rows;
}

}  // namespace assay
