#include "harness/contract/cause.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace assay {

const Cause* named_cause(std::span<const Cause> causes) {
  const auto found = std::ranges::find_if(causes, names_the_error);
  return found == causes.end() ? nullptr : &*found;
}

std::string explained_in_words(const Cause& cause) {
  if (cause.every_bit) return "explains every bit";
  const double percent = std::floor(cause.explained * 1000.0) / 10.0;
  return fmt::format("explains {:.1f} % of the error", std::min(percent, 99.9));
}

std::string in_words(const Cause& cause) {
  return fmt::format("{} ({})", cause.sentence, explained_in_words(cause));
}

}  // namespace assay
