#include "harness/contract/precision_contract.h"

#include <algorithm>

#include <fmt/format.h>

#include "harness/contract/error.h"

namespace assay {

std::string_view name(TieRule rule) { return rule == TieRule::Any ? "any" : "lowest_index"; }

TieRule parse_tie_rule(std::string_view text) {
  for (const TieRule rule : {TieRule::Any, TieRule::LowestIndex})
    if (text == name(rule)) return rule;
  throw UsageError(fmt::format("unknown tie rule '{}'; valid: any, lowest_index", text));
}

const PrecisionContract& find_contract(std::string_view name) {
  const auto found = std::ranges::find(kContracts, name, &PrecisionContract::name);
  if (found != kContracts.end()) return *found;
  std::string valid;
  for (const auto& contract : kContracts)
    valid += fmt::format("{}{}", valid.empty() ? "" : ", ", contract.name);
  throw UsageError(fmt::format("unknown contract '{}'; valid: {}", name, valid));
}

}  // namespace assay
