#include "harness/cli/place_words.h"

#include <algorithm>

#include <fmt/format.h>

#include "harness/contract/layer.h"
#include "harness/contract/precision_contract.h"

namespace assay::cli {
namespace {

bool wrong(const Judgement& judgement) {
  return judgement.verdict > Verdict::Passed && judgement.worst.has_value();
}
bool wrong(const Prediction& bits) { return bits.binding && bits.differing > 0 && bits.first.has_value(); }

}  // namespace

std::string explain_words(const CaseResult& result, const std::string& source) {
  for (const auto& field : result.fields) {
    if (result.first_own_error ? field.field != *result.first_own_error : field.verdict <= Verdict::Passed)
      continue;
    // Explain would refuse a field that the contract forms by another step than hf.
    const auto contract = std::ranges::find(kContracts, result.contract, &PrecisionContract::name);
    if (contract != kContracts.end() && find_step(field.field, *contract) != find_step(field.field))
      return "";
    const Element* element = nullptr;
    bool chained = false;
    if (wrong(field.isolated))
      element = &*field.isolated.worst;
    else if (wrong(field.isolated_bits))
      element = &*field.isolated_bits.first;
    else if ((chained = wrong(field.chained)))
      element = &*field.chained.worst;
    else if ((chained = wrong(field.chained_bits)))
      element = &*field.chained_bits.first;
    if (element == nullptr) return "";
    std::string at;
    for (const auto& [axis, index] : element->at)
      at += fmt::format("{}{}={}", at.empty() ? "" : ",", axis, index);
    return fmt::format("assay explain {} --field {} --at {}{}", source, name(field.field), at,
                       chained ? " --mode chained" : "");
  }
  return "";
}

}  // namespace assay::cli
