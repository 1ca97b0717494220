// Checks of a field that a file holds by its hashes: predicted bits against every hash, intervals on the
// rows that are stored.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "harness/contract/held_field.h"
#include "harness/contract/upstream.h"
#include "harness/judge/compare.h"

namespace assay {

/// SHA-256 of raw bytes as lower-case hex text.
using Hasher = std::function<std::string(std::span<const std::byte>)>;

struct HeldChecks {
  Judgement judgement;             // of the stored rows
  Prediction bits;                 // of all elements: those of an expert are as predicted if its hash is
  std::vector<std::string> notes;  // "expert 17 has another hash than predicted", what is undetermined
};

/// What is wrong with the tensor that the hashes stand for; nothing where it can be judged.
std::optional<Unusable> unusable(const HeldField& held, const Sizes& sizes, DType dtype);

/// One mode. An expert with an undetermined element is undetermined. Of one with another hash, as many
/// elements differ as its stored rows show, and at least one. `binding`: a difference counts. `known`: what
/// the hashes said in another mode of the same predictions; null compares them.
HeldChecks check_held(CompareContext context, const HeldField& held, Reference& reference, Mode mode,
                      bool binding, const Hasher& hash, const HeldChecks* known = nullptr);

}  // namespace assay
