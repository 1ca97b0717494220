#include "harness/contract.h"

#include <algorithm>

#include <fmt/format.h>

#include "harness/error.h"

namespace assay {

const PrecisionContract& find_contract(std::string_view name) {
  const auto found = std::ranges::find(kContracts, name, &PrecisionContract::name);
  if (found != kContracts.end()) return *found;
  std::string valid;
  for (const auto& contract : kContracts) valid += fmt::format("{}{}", valid.empty() ? "" : ", ", contract.name);
  throw UsageError(fmt::format("unknown contract '{}'; valid: {}", name, valid));
}

}  // namespace assay
