#include <fmt/format.h>

#include "reports/sensitivity_report.h"

namespace assay {
namespace {

using ScoredFault = Sensitivity::Fault;

std::string mark(std::int64_t caught, std::int64_t problems) {
  return caught == problems ? "yes" : caught == 0 ? "-" : fmt::format("{}/{}", caught, problems);
}

/// A bar would end the table's cell.
std::string cell(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '|' ? "\\|" : std::string(1, c);
  return out;
}

std::string size_text(const std::optional<double>& size) {
  return size ? fmt::format("{:.3g}", *size) : "never";
}

bool counts(const ScoredFault& fault) { return fault.note != "equivalent"; }
bool counts_backward(const ScoredFault& fault) { return counts(fault) && fault.stage.starts_with("d_"); }

/// "3 of 5": the faults that rule i catches on some problem.
std::string caught(const Sensitivity& all, std::size_t i, bool (*counted)(const ScoredFault&)) {
  std::int64_t of = 0;
  std::int64_t found = 0;
  for (const ScoredFault& fault : all.faults) {
    if (!counted(fault)) continue;
    ++of;
    found += fault.caught[i] > 0;
  }
  return fmt::format("{} of {}", found, of);
}

}  // namespace

std::string render_sensitivity_markdown(const Sensitivity& all) {
  std::string out =
      "# What assay catches\n\nFaults planted one at a time in a correct layer (`fixtures/faults_*.cpp`), "
      "and who notices. Written by\n\n    " +
      all.command +
      "\n\nand compared with the program's own results by a test: do not edit.\n\n| | |\n|---|---|\n";
  for (const auto& [what, value] : all.facts) out += fmt::format("| {} | {} |\n", what, value);
  if (!all.scopes.empty()) {
    out +=
        "\n## By contract and width\n\n| contract | problems | planted | killed | in the right stage | with "
        "nothing declared | cause named rightly |\n|---|---|---|---|---|---|---|\n";
    for (const auto& s : all.scopes)
      out += fmt::format("| {} | {} | {} | {} | {} | {} | {} |\n", s.contract, s.problems, s.planted,
                         s.killed, s.right_stage, s.undeclared, s.cause);
  }
  out +=
      "\n## Rules\n\nassay's detectors stand alone here, each by itself; the rules of thumb see what leaves "
      "the "
      "layer: its output, and of faults in the backward pass the gradients of its inputs and weights.\n\n| "
      "rule | "
      "accepts when | faults caught | of these in the backward pass | correct runs rejected "
      "|\n|---|---|---|---|---|\n";
  for (std::size_t i = 0; i < all.rules.size(); ++i)
    out += fmt::format("| {} | {} | {} | {} | {} |\n", all.rules[i].name, cell(all.rules[i].sentence),
                       caught(all, i, counts), caught(all, i, counts_backward),
                       all.rules[i].wrongly.empty() ? "-" : all.rules[i].wrongly);
  if (!all.curves.empty()) {
    out +=
        "\n## From which size on\n\nThe smallest size found on 50 % and on 99 % of the problems, and so for "
        "every larger size tried.\n";
    for (const auto& curve : all.curves) {
      out += fmt::format("\n{} ({}; {} problems)\n\n| rule | 50 % | 99 % |\n|---|---|---|\n", curve.title,
                         curve.size, curve.seeds);
      for (const auto& line : curve.lines)
        out += fmt::format("| {} | {} | {} |\n", line.rule, size_text(line.half), size_text(line.nearly_all));
    }
  }
  out +=
      "\n## Every fault\n\n`yes`: on every problem it was planted on; `1/2`: on some; `-`: on none.\n\n| "
      "fault | stage |";
  for (const auto& rule : all.rules) out += fmt::format(" {} |", rule.name);
  out += "\n|---|---|";
  for (std::size_t i = 0; i < all.rules.size(); ++i) out += "---|";
  out += "\n";
  for (const auto& fault : all.faults) {
    out +=
        fmt::format("| {}{}: {} | {} |", fault.id, fault.note.empty() ? "" : fmt::format(" ({})", fault.note),
                    fault.sentence, fault.stage);
    for (const auto caught : fault.caught) out += fmt::format(" {} |", mark(caught, fault.problems));
    out += "\n";
  }
  return out;
}

}  // namespace assay
