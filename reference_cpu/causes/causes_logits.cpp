// Logits that are something else: what the softmax, or another function, makes of them.
#include <algorithm>
#include <cmath>

#include "reference_cpu/causes/causes.h"

namespace assay {
namespace {

struct LogitForm {
  std::string_view id;
  std::string_view sentence;
  double (*of)(double logit, double log_sum);
};

// clang-format off
constexpr LogitForm kForms[] = {
    {"logits_softmaxed", "the rows are softmaxes of the logits",              [](double l, double s) { return std::exp(l - s); }},
    {"logits_softmaxed", "the rows are logarithms of softmaxes of the logits", [](double l, double s) { return l - s; }},
    {"logits_softmaxed", "the rows are sigmoids of the logits",               [](double l, double) { return 1.0 / (1.0 + std::exp(-l)); }},
};
// clang-format on

/// log sum exp of a row, of logits before they are stored or as they are.
double log_sum(const Evidence& evidence, std::int64_t r, bool stored) {
  double most = -INFINITY;
  double sum = 0.0;
  const auto logit = [&](std::int64_t c) -> double {
    const auto at = index(evidence, r, c);
    return stored ? to_float(evidence.reference[at]) : evidence.plain[at].value;
  };
  for (std::int64_t c = 0; c < evidence.width; ++c) most = std::max(most, logit(c));
  for (std::int64_t c = 0; c < evidence.width; ++c) sum += std::exp(logit(c) - most);
  return most + std::log(sum);
}

}  // namespace

std::vector<Proposal> propose_logits(const Evidence& evidence, const ErrorPlace&) {
  std::vector<Proposal> all;
  for (const auto& form : kForms)
    for (const bool stored : {true, false})
      all.push_back({form.id, std::string(form.sentence), [&evidence, form, stored](const Window& window) {
                       std::vector<Bf16> bits;
                       bits.reserve(window.size());
                       for (const auto r : window.rows) {
                         const double sum = log_sum(evidence, r, stored);
                         for (const auto c : window.columns) {
                           const auto at = index(evidence, r, c);
                           const double logit =
                               stored ? to_float(evidence.reference[at]) : evidence.plain[at].value;
                           bits.push_back(round_to_bf16(static_cast<float>(form.of(logit, sum))));
                         }
                       }
                       return bits;
                     }});
  return all;
}

}  // namespace assay
